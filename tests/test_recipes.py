"""The tables of configs/eql/README.md say what the configs do."""

import argparse
import functools
import re
import shlex
from pathlib import Path

import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope
from tool_runs import load_tool

from mmdet_longtail.losses.base import LongTailLoss

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / 'configs' / 'eql'
README = (FOLDER / 'README.md').read_text()
COMMANDS = [
    shlex.split(line)
    for block in re.findall(r'```bash\n(.*?)```', README, flags=re.DOTALL)
    for line in block.replace('\\\n', ' ').splitlines()
    if 'configs/' in line
]
# Such as 22.8 11.3/24.7/25.1, 23.3
RESULT = re.compile(r'[\d.]+ ?[\d./; ]+(, [\d.]+)?')
ablate = load_tool('ablate.py')


def read_tables(text):
    """Give each row of each table that begins with a config as a dict."""
    header, rows = None, []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip('| ').split('|')]
        if not line.startswith('|'):
            header = None
        elif header is None:
            header = cells
        elif header[0] == 'config' and not set(line) <= set('|- '):
            rows.append(dict(zip(header, cells, strict=True)))
    return rows


ROWS = read_tables(README)


def path_of(row):
    return (FOLDER / re.search(r'\((.*)\)', row['config'])[1]).resolve()


@functools.cache
def load(path):
    return Config.fromfile(path)


# -- a recipe in words -------------------------------------------------------


def ratio(pos_fraction):
    """Positives to negatives: 0.25 is 1:3."""
    return f'1:{1 / pos_fraction - 1:g}'


def scales(pipeline):
    """Long edge x short edge, in a range where one is drawn."""
    (resize,) = (t for t in pipeline if 'Resize' in t.type)
    drawn = resize.get('scales') or [resize.scale]
    long = {max(scale) for scale in drawn}
    short = sorted({min(scale) for scale in drawn})
    assert len(long) == 1
    return f'{long.pop()} x {"-".join(map(str, short[:1] + short[1:][-1:]))}'


def first(value):
    """The first stage of a cascade."""
    return value[0] if isinstance(value, list) else value


def in_words(component, *left_out):
    """A type and its settings."""
    settings = [
        in_words(value) if isinstance(value, dict) else f'{key}={value:g}'
        for key, value in component.items()
        if key not in ('type', '_scope_', *left_out)
    ]
    return component.type + (f' ({", ".join(settings)})' if settings else '')


def recipe(config):
    """What a row of the README says, read from the resolved config."""
    train, rcnn = config.train_dataloader, first(config.model.train_cfg.rcnn)
    rpn, roi_head = config.model.train_cfg.rpn, config.model.roi_head
    loss_cls = first(roi_head.bbox_head).loss_cls
    dataset = train.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    warm_up, decay = config.param_scheduler
    batch = config.auto_scale_lr.base_batch_size
    by_epoch = 'max_epochs' in config.train_cfg
    mask_head = roi_head.get('mask_head')
    return {
        'weights': config.model.backbone.init_cfg.checkpoint,
        'LR': f'{config.optim_wrapper.optimizer.lr:g}',
        'GPUs x images': f'{batch // train.batch_size} x {train.batch_size}',
        'length': (
            f'{config.train_cfg.max_epochs} epochs'
            if by_epoch
            else f'{config.train_cfg.max_iters} iterations'
        ),
        'LR / 10 at': ', '.join(map(str, decay.milestones)),
        'warm-up': f'{warm_up.end} from {warm_up.start_factor:g}',
        'scale': scales(dataset.pipeline),
        'masks': (
            'none'
            if mask_head is None
            else 'agnostic'
            if mask_head.get('class_agnostic')
            else 'specific'
        ),
        'RPN': f'{rpn.sampler.num}, {ratio(rpn.sampler.pos_fraction)}',
        'proposals': str(config.model.train_cfg.rpn_proposal.max_per_img),
        'RoIs': f'{rcnn.sampler.num}, {ratio(rcnn.sampler.pos_fraction)}',
        'loss': in_words(
            loss_cls,
            *('num_classes', 'frequency_threshold', 'loss_weight'),
            'use_sigmoid',
        ),
        'lambda': f'{loss_cls.get("frequency_threshold", "none")}',
        'sampler': in_words(train.sampler, 'shuffle'),
        'image labels': 'yes' if 'Federated' in dataset.type else 'no',
        'score_thr': f'{config.model.test_cfg.rcnn.score_thr:g}',
        'max_per_img': str(config.model.test_cfg.rcnn.max_per_img),
    }


# -- the tests ---------------------------------------------------------------


@pytest.mark.parametrize('row', ROWS, ids=lambda row: path_of(row).stem)
def test_every_cell_is_what_the_config_says(row):
    path = path_of(row)
    assert path.stem == re.search(r'\[`(.*)`\]', row['config'])[1]
    config = load(path)
    told = {k: v for k, v in row.items() if k not in ('config', 'result')}
    assert told == recipe(config)
    optimizer = config.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.momentum) == ('SGD', 0.9)
    assert optimizer.weight_decay == 1e-4
    # One loss for all stages of a cascade, and the schedule ends in time.
    heads = config.model.roi_head.bbox_head
    if isinstance(heads, list):
        assert all(head.loss_cls == heads[0].loss_cls for head in heads)
    length = float(row['length'].split()[0])
    assert config.param_scheduler[1].end == length


@pytest.mark.parametrize('row', ROWS, ids=lambda row: path_of(row).stem)
def test_result_is_that_of_the_header(row):
    header = ' '.join(
        line.removeprefix('# ')
        for line in path_of(row).read_text().splitlines()
        if line.startswith('#')
    )
    if row['result'] == 'none':
        assert 'published' in header.lower()
    else:
        assert RESULT.fullmatch(row['result'])
        assert row['result'] in header


def test_every_config_has_a_row():
    paths = {
        *FOLDER.glob('*.py'),
        *(FOLDER.parent / 'comparison').glob('*.py'),
    }
    told = [path_of(row) for row in ROWS]
    assert len(told) == len(set(told))
    assert set(told) == paths


def test_the_paper_has_one_recipe_beside_its_comparisons():
    """Rows of Tables 1 and 5 differ in nothing that they do not compare."""
    compared = {'weights', 'loss', 'lambda', 'sampler', 'image labels'}
    recipes = [
        recipe(load(path_of(row))) for row in ROWS if '_25e_' in row['config']
    ]
    for values in recipes:
        for key in values.keys() - compared:
            assert values[key] == recipes[0][key], key


@pytest.mark.parametrize('words', COMMANDS, ids=lambda words: words[-1])
def test_commands_change_what_they_say(words):
    parser = argparse.ArgumentParser()
    parser.add_argument('config', nargs='+')
    parser.add_argument('--set', nargs='+', action='append', default=[])
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    start = next(i for i, w in enumerate(words) if w.startswith('configs/'))
    args, _ = parser.parse_known_args(words[start:])
    tool = next(w for w in words if w.startswith('tools/'))
    assert (ROOT / tool).exists()
    init_default_scope('mmdet')
    for path in args.config:
        config = Config.fromfile(ROOT / path)
        config.merge_from_dict(args.cfg_options or {})
        assert config.train_dataloader.dataset.type in DATASETS
        with torch.device('meta'):
            MODELS.build(config.model)
        for key, *values in args.set:
            holder, last = ablate.locate(config, key)
            for value in map(ablate.parse_value, values):
                holder[last] = value
                loss = MODELS.build(dict(holder))
                assert isinstance(loss, LongTailLoss)

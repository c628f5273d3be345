"""The tables of the READMEs in configs say what the configs do."""

import argparse
import functools
import re
import shlex
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from tool_runs import load_tool

from mmdet_longtail.apis.sweep import locate, parse_value
from mmdet_longtail.models.losses.base import LongTailLoss

ROOT = Path(__file__).resolve().parents[2]
READMES = {
    path.parent.name: path.read_text()
    for path in sorted((ROOT / 'configs').glob('*/README.md'))
    if path.parent.name not in ('classification', 'lvis_challenge_2019')
}
COMMANDS = [
    shlex.split(line)
    for text in READMES.values()
    for block in re.findall(r'```bash\n(.*?)```', text, flags=re.DOTALL)
    for line in block.replace('\\\n', ' ').splitlines()
    if 'tools/' in line
]
# Such as 22.8 11.3/24.7/25.1, 23.3
RESULT = re.compile(r'[\d.]+ ?[\d./; ]+(, [\d./; ]+)?')
NUMBER = re.compile(r'[\d.]+')
# What a header compares its own result with.
OTHER_ROWS = ('softmax', 'sigmoid')
load_tool = functools.cache(load_tool)


def read_tables(folder, text):
    """Give each row of each table that begins with a config as a dict."""
    header, rows = None, []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip('| ').split('|')]
        if not line.startswith('|'):
            header = None
        elif header is None:
            header = cells
        elif header[0] == 'config' and not set(line) <= set('|- '):
            row = dict(zip(header, cells, strict=True))
            (link,) = re.findall(r'\((.*)\)', row['config'])
            rows.append(row | {'path': (folder / link).resolve()})
    return rows


ROWS = [
    row
    for name, text in READMES.items()
    for row in read_tables(ROOT / 'configs' / name, text)
]


def name_of(row):
    return row['path'].stem


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
    drawn = resize.get('scales') or resize.scale
    drawn = [drawn] if isinstance(drawn, tuple) else drawn
    long = {max(scale) for scale in drawn}
    short = sorted({min(scale) for scale in drawn})
    assert len(long) == 1
    return f'{long.pop()} x {"-".join(map(str, short[:1] + short[1:][-1:]))}'


def first(value):
    """The first stage of a cascade."""
    return value[0] if isinstance(value, list) else value


def spell(value):
    """A setting."""
    if isinstance(value, dict):
        return in_words(value)
    return f'({numbers(value)})' if isinstance(value, tuple) else f'{value:g}'


def numbers(values):
    return ', '.join(f'{value:g}' for value in values)


def in_words(component, *left_out):
    """A type and its settings."""
    settings = [
        spell(value) if isinstance(value, dict) else f'{key}={spell(value)}'
        for key, value in component.items()
        if key not in ('type', '_scope_', *left_out)
    ]
    return component.type + (f' ({", ".join(settings)})' if settings else '')


def layer(head, key):
    """The last layer of a head."""
    return in_words(head[key]) if key in head else 'linear'


def trained_part(hooks):
    """The names in the bbox head that train, or all."""
    if 'train_only' not in hooks:
        return 'all'
    names = [
        pattern.removeprefix('roi_head.bbox_head.')
        for pattern in hooks.train_only.trainable
    ]
    anew = ', from the beginning' if 'restart_classifier' in hooks else ''
    return ', '.join(names) + anew


def first_weights(config):
    """The config, the published detector or the backbone at the start."""
    if 'base_config' in config:
        return config.base_config.removesuffix('.py')
    if config.get('load_from'):
        return config.load_from.split('/')[-2]
    return config.model.backbone.init_cfg.checkpoint


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
    mask_head = first(roi_head.get('mask_head'))
    agnostic = first(roi_head.bbox_head).get('reg_class_agnostic')
    clip = config.optim_wrapper.get('clip_grad')
    return {
        'weights': config.model.backbone.init_cfg.checkpoint,
        'starts from': first_weights(config),
        'trains': trained_part(config.default_hooks),
        'training set': Path(dataset.ann_file).stem,
        'LR': f'{config.optim_wrapper.optimizer.lr:g}',
        'GPUs x images': f'{batch // train.batch_size} x {train.batch_size}',
        'length': (
            f'{config.train_cfg.max_epochs} epochs'
            if by_epoch
            else f'{config.train_cfg.max_iters} iterations'
        ),
        'LR / 10 at': ', '.join(map(str, decay.milestones)),
        'warm-up': f'{warm_up.end} from {warm_up.start_factor:g}',
        'clip': f'{clip.max_norm:g}' if clip else 'none',
        'classifier': layer(first(roi_head.bbox_head), 'cls_predictor_cfg'),
        'mask classifier': layer(mask_head or {}, 'predictor_cfg'),
        'scale': scales(dataset.pipeline),
        'boxes': 'agnostic' if agnostic else 'specific',
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
            *('use_sigmoid', 'bin_edges', 'others_ratio', 'prior_prob'),
        ),
        'bins': numbers(loss_cls.get('bin_edges', ())) or 'none',
        'beta': (
            spell(loss_cls.others_ratio)
            if 'others_ratio' in loss_cls
            else 'none'
        ),
        'lambda': f'{loss_cls.get("frequency_threshold", "none")}',
        'sampler': in_words(train.sampler, 'shuffle'),
        'image labels': 'yes' if 'Federated' in dataset.type else 'no',
        'score_thr': f'{config.model.test_cfg.rcnn.score_thr:g}',
        'max_per_img': str(config.model.test_cfg.rcnn.max_per_img),
    }


# -- the tests ---------------------------------------------------------------


@pytest.mark.parametrize('row', ROWS, ids=name_of)
def test_every_cell_is_what_the_config_says(row):
    path = row['path']
    assert path.stem == re.search(r'\[`(.*)`\]', row['config'])[1]
    config = load(path)
    values = recipe(config)
    told = {
        key: cell
        for key, cell in row.items()
        if key not in ('config', 'result', 'path')
    }
    assert told == {key: values[key] for key in told}
    optimizer = config.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.momentum) == ('SGD', 0.9)
    assert optimizer.weight_decay == 1e-4
    # One loss for all stages of a cascade, and the schedule ends in time.
    heads = config.model.roi_head.bbox_head
    if isinstance(heads, list):
        assert all(head.loss_cls == heads[0].loss_cls for head in heads)
    length = float(row['length'].split()[0])
    assert config.param_scheduler[1].end == length


@pytest.mark.parametrize('row', ROWS, ids=name_of)
def test_result_is_that_of_the_header(row):
    header = [
        line.removeprefix('# ')
        for line in row['path'].read_text().splitlines()
        if line.startswith('#')
    ]
    if row['result'] == 'none':
        assert 'published' in ' '.join(header).lower()
        return
    assert RESULT.fullmatch(row['result'])
    (title,) = (i for i, line in enumerate(header) if '|--' in line)
    figures = []
    for line in header[title + 1 :]:
        cells = [cell.strip() for cell in line.strip('| ').split('|')]
        if line.startswith('|') and cells[0] not in OTHER_ROWS:
            figures += [cell for cell in cells if NUMBER.fullmatch(cell)]
    assert figures == NUMBER.findall(row['result'])


def test_every_config_has_one_row():
    folders = [*READMES, 'comparison']
    paths = {
        path
        for name in folders
        for path in (ROOT / 'configs' / name).glob('*.py')
    }
    told = [row['path'] for row in ROWS]
    assert len(told) == len(set(told))
    assert set(told) == paths


def check_one_recipe(rows, compared):
    """Rows differ in nothing that they do not compare."""
    recipes = [recipe(load(row['path'])) for row in rows]
    assert len(recipes) > 1
    for values in recipes:
        for key in values.keys() - compared:
            assert values[key] == recipes[0][key], key


def test_eql_has_one_recipe_beside_its_comparisons():
    """Those of Tables 1 and 5."""
    compared = {'weights', 'starts from', 'loss', 'lambda', 'sampler'}
    rows = [row for row in ROWS if '_25e_' in name_of(row)]
    check_one_recipe(rows, compared | {'image labels', 'boxes'})


def test_bags_has_one_recipe_beside_its_comparisons():
    """Those of Table 1 that train for 12 epochs."""
    compared = {'starts from', 'trains', 'loss', 'bins', 'beta', 'sampler'}
    rows = [
        row
        for row in ROWS
        if name_of(row).startswith('faster-rcnn_r50_fpn_')
        and name_of(row).endswith('_1x_lvis-v0.5')
        and row['length'] == '12 epochs'
    ]
    check_one_recipe(rows, compared | {'GPUs x images'})


@pytest.mark.parametrize(
    'words', COMMANDS, ids=lambda words: ' '.join(words)[-60:]
)
def test_commands_change_what_they_say(words, monkeypatch):
    start, tool = next(
        (i, word) for i, word in enumerate(words) if word.startswith('tools/')
    )
    args = parsed_arguments(tool, words[start + 1 :], monkeypatch)
    init_default_scope('mmdet')
    for path in (word for word in words if word.startswith('configs/')):
        config = Config.fromfile(ROOT / path)
        config.merge_from_dict(getattr(args, 'cfg_options', None) or {})
        assert config.train_dataloader.dataset.type in DATASETS
        with torch.device('meta'):
            model = MODELS.build(config.model)
        for key, *values in getattr(args, 'settings', []):
            holder, last = locate(config, key)
            for value in map(parse_value, values):
                holder[last] = value
                check_training(config, model)


class ArgumentsParsedError(Exception):
    """The arguments of a tool, in the place of its work."""


def parsed_arguments(tool, words, monkeypatch):
    parse_args = argparse.ArgumentParser.parse_args

    def stop(parser):
        raise ArgumentsParsedError(parse_args(parser, words))

    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', stop)
    with pytest.raises(ArgumentsParsedError) as caught:
        load_tool(tool.removeprefix('tools/')).main()
    return caught.value.args[0]


def check_training(config, model):
    """The loss is one that can be built, and something trains."""
    loss_cls = first(config.model.roi_head.bbox_head).loss_cls
    assert isinstance(MODELS.build(dict(loss_cls)), LongTailLoss)
    if 'train_only' in config.default_hooks:
        names = [name for name, _ in model.named_parameters()]
        for pattern in config.default_hooks.train_only.trainable:
            assert any(fnmatch(name, f'{pattern}.*') for name in names)

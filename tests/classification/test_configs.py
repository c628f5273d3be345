"""The shipped configs build, and say what the table of recipes says."""

import re
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmpretrain.registry import MODELS, TRANSFORMS

import mmdet_longtail.classification  # noqa: F401

FOLDER = Path(__file__).parents[2] / 'configs' / 'classification'
CONFIGS = sorted(FOLDER.glob('*.py'))
README = (FOLDER / 'README.md').read_text()


def tables():
    """Rows of cells of each table, by the first cell of its header."""
    found = {}
    for block in re.findall(r'(?:^\|.*\n)+', README, flags=re.MULTILINE):
        header, _, *rows = (
            [cell.strip() for cell in line.strip('|').split('|')]
            for line in block.splitlines()
        )
        found[tuple(header[:2])] = [dict(zip(header, row)) for row in rows]
    return found


TABLES = tables()
RECIPES = TABLES['', 'CIFAR-100-LT']


def recipe(config):
    """The cells of the table, but for the names of the files."""
    optimizer = config.optim_wrapper.optimizer
    warm_up, steps = config.param_scheduler
    loader = config.train_dataloader
    sizes = {
        'RandomCrop': '{crop_size} (padding {padding})',
        'CenterCrop': '{crop_size}',
        'RandomResizedCrop': '{scale}',
        'ResizeEdge': '{scale}',
        'ColorJitter': '{brightness}',
        'Cutout': '{shape}',
    }
    images = [
        ', '.join(
            f'{t.type} {sizes.get(t.type, "").format(**t)}'.strip()
            for t in dataset.pipeline
            if t.type not in ('PackInputs', 'LoadImageFromFile')
        )
        for dataset in (loader.dataset, config.val_dataloader.dataset)
    ]
    gpus = config.auto_scale_lr.base_batch_size // loader.batch_size
    nesterov = ', Nesterov' if optimizer.get('nesterov') else ''
    assert not config.train_cfg.by_epoch
    assert not warm_up.by_epoch and not steps.by_epoch
    assert warm_up.begin == 0
    return {
        'classes': f'{config.model.head.num_classes}',
        'backbone': config.model.backbone.type,
        'GPUs x images': f'{gpus} x {loader.batch_size}',
        'iterations': f'{config.train_cfg.max_iters}',
        'optimizer': f'{optimizer.type}, momentum {optimizer.momentum}'
        + nesterov,
        'weight decay': f'{optimizer.weight_decay}',
        'learning rate': f'{optimizer.lr}',
        'warm-up': f'from {warm_up.start_factor * optimizer.lr:g}, '
        f'{warm_up.end} iterations',
        f'x {steps.gamma} at': ', '.join(map(str, steps.milestones)),
        'training images': images[0],
        'test images': images[1] or 'as they are',
    }


def test_every_config_is_in_the_table():
    named = re.findall(r'`(\S+\.py)`', README)
    assert sorted(named) == [path.name for path in CONFIGS]


@pytest.mark.parametrize('dataset', ['CIFAR-100-LT', 'ImageNet-LT'])
def test_recipes_are_those_of_the_configs(dataset):
    cells = {row['']: row[dataset] for row in RECIPES}
    softmax, seql = (
        Config.fromfile(FOLDER / cells.pop(name).strip('`'))
        for name in ('softmax', 'SEQL')
    )
    loss = seql.model.head.loss
    assert loss.num_classes == seql.model.head.num_classes
    assert cells.pop('lambda of SEQL') == f'{loss.frequency_threshold}'
    assert cells.pop('gamma of SEQL') == f'{loss.ignore_probability}'
    assert recipe(softmax) == cells
    assert recipe(seql) == cells
    assert softmax.model.head.loss.type == 'CrossEntropyLoss'


@pytest.mark.parametrize(
    'header, config',
    [
        (('gamma', 'lambda 3e-3'), 'resnet32_seql_cifar-100-lt.py'),
        (('gamma', 'many'), 'resnet10_seql_imagenet-lt.py'),
    ],
)
def test_options_give_the_gamma_of_the_row(header, config):
    for row in TABLES[header]:
        if float(row['gamma']) == 0:
            continue
        options = re.findall(r'`(\S+)=(\S+)`', row['options'])
        seql = Config.fromfile(FOLDER / config)
        seql.merge_from_dict({key: float(value) for key, value in options})
        loss = seql.model.head.loss
        assert loss.ignore_probability == float(row['gamma'])
        assert loss.keys() == {
            'type',
            'num_classes',
            'frequency_threshold',
            'ignore_probability',
        }


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_config_builds_and_is_short(path):
    init_default_scope('mmpretrain')
    config = Config.fromfile(path)
    model = MODELS.build(config.model)
    assert model.head.fc.out_features == config.data_preprocessor.num_classes
    for loader in (config.train_dataloader, config.val_dataloader):
        for transform in loader.dataset.pipeline:
            TRANSFORMS.build(transform)
    text = path.read_text()
    code = [line for line in text.splitlines() if line[:1] not in ('#', '')]
    assert len(code) <= 15
    header = ' '.join(re.findall('^# *(.*)', text, flags=re.MULTILINE))
    assert f'tools/train.py configs/classification/{path.name}' in header
    gpus = config.auto_scale_lr.base_batch_size
    gpus //= config.train_dataloader.batch_size
    assert f'--nproc_per_node {gpus} ' in header

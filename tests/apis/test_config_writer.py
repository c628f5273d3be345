"""apis/config_writer.py: the losses and settings that configs are given."""

import json
from pathlib import Path

import pytest
from mmdet.registry import DATASETS, MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.runner import Runner
from tiny import make_data, write_config

from mmdet_longtail.apis.config_writer import make_config, write_second_stage
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.losses import (
    BalancedGroupSoftmaxLoss,
    SoftmaxEqualizationLoss,
)
from mmdet_longtail.structures.class_statistics import ClassStatistics


class MadeUpEqualizationLoss(SoftmaxEqualizationLoss):
    """A loss of a user, whose settings are those of its base and one more."""

    def __init__(self, *args, strength=0.5, **kwargs):
        super().__init__(*args, **kwargs)
        self.strength = strength


class MadeUpGroupLoss(BalancedGroupSoftmaxLoss):
    """A loss of a user without settings of its own."""


@pytest.fixture(params=[MadeUpEqualizationLoss, MadeUpGroupLoss])
def made_up_loss(request):
    register_all_modules()
    MODELS.register_module(module=request.param)
    yield request.param.__name__
    MODELS.module_dict.pop(request.param.__name__)


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path / 'tiny.py', make_data(tmp_path / 'data'))
    return tmp_path


def write(method, **options):
    options = {'base': ['tiny.py']} | options
    return make_config('data', 'train.json', 'val.json', method, **options)


def test_a_loss_registered_later_is_written(made_up_loss, project):
    path = write(made_up_loss)
    assert path.name == f'data_{made_up_loss}.py'
    loss = Config.fromfile(path).model.roi_head.bbox_head.loss_cls
    settings = {
        'MadeUpEqualizationLoss': {'frequency_threshold': 0.0},
        'MadeUpGroupLoss': {'bin_edges': (3,)},
    }
    assert loss == {
        'type': made_up_loss,
        'num_classes': 4,
        **settings[made_up_loss],
    }


@pytest.mark.parametrize(
    'loss', ['NoLoss', 'FocalLoss', 'DenseEqualizationLoss', 'ResNet']
)
def test_other_losses_raise(loss, project):
    with pytest.raises(LongTailError, match=f'^{loss}: no registered'):
        write(loss)
    assert not (project / f'data_{loss}.py').exists()


@pytest.mark.parametrize('scope', ['', 'mmdet.'])
def test_types_are_compared_with_and_without_scope(scope, project):
    config = Config.fromfile('tiny.py')
    head = config.model.roi_head.bbox_head
    head.loss_cls.type = f'{scope}CrossEntropyLoss'
    for loader in (config.train_dataloader, config.val_dataloader):
        for step in loader.dataset.pipeline:
            step.type = scope + step.type
    config.dump('scoped.py')
    path = write('softmax', base=['scoped.py'], scale=(32, 48))
    assert 'loss_cls' not in path.read_text()
    config = Config.fromfile(path)
    pipeline = config.val_dataloader.dataset.pipeline
    assert [step.scale for step in pipeline if 'scale' in step] == [(32, 48)]


WATCHED = {
    "'coco/bbox_mAP'": 'frequency_group/bbox_AP',
    "'coco/bbox_mAP_50'": 'frequency_group/bbox_AP50',
    "'coco/segm_mAP'": 'frequency_group/bbox_AP',  # the base has no masks
    "'pascal_voc/mAP'": 'frequency_group/bbox_AP',
    "'auto'": 'frequency_group/bbox_AP',
    "'frequency_group/bbox_APr'": 'frequency_group/bbox_APr',
    "['coco/bbox_mAP', 'coco/bbox_mAP_s', 'auto']": [
        'frequency_group/bbox_AP',
        'frequency_group/bbox_APs',
    ],
}


@pytest.mark.parametrize('watched', WATCHED)
def test_watched_keys_are_those_that_are_reported(watched, project):
    with open('tiny.py', 'a') as file:
        file.write(
            f"""
default_hooks['checkpoint'].update(save_best={watched})
custom_hooks = [
    dict(type='NumClassCheckHook'),
    dict(type='EarlyStoppingHook', monitor={watched}, rule='less')]
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, end=2),
    dict(type='ReduceOnPlateauLR', monitor={watched}, patience=3)]
"""
        )
    config = Config.fromfile(write('softmax'))
    checkpoint, stopping, schedule = (
        config.default_hooks.checkpoint,
        config.custom_hooks[1],
        config.param_scheduler[1],
    )
    expected = WATCHED[watched]
    assert checkpoint.save_best == expected
    assert stopping.monitor == schedule.monitor == expected
    assert stopping.type == 'EarlyStoppingHook' and schedule.patience == 3
    assert checkpoint.type == 'CheckpointHook' and checkpoint.interval == 1
    if 'APr' not in watched:
        assert checkpoint.rule == stopping.rule == schedule.rule == 'greater'


def test_keys_of_kept_metrics_are_still_watched(project):
    """Of a list of metrics only COCO's and LVIS's become another one."""
    config = Config.fromfile('tiny.py')
    config.val_evaluator = [
        dict(type='mmdet.CocoMetric', prefix='mine', metric=['bbox', 'segm']),
        dict(type='mmdet.VOCMetric'),
    ]
    config.default_hooks.checkpoint.save_best = [
        'mine/segm_mAP',
        'pascal_voc/mAP',
    ]
    config.custom_hooks = [
        dict(type='EarlyStoppingHook', monitor='pascal_voc/mAP')
    ]
    config.dump('base.py')
    write_second_stage(
        Path('bags.py'),
        config,
        ClassStatistics.from_annotation_file('data/train.json'),
        base='base.py',
        load_from='start.pth',
        source='run',
    )
    stage = Config.fromfile('bags.py')
    first, second = stage.val_evaluator
    assert first.type == 'FrequencyGroupMetric'
    assert second.type == 'mmdet.VOCMetric'
    assert stage.default_hooks.checkpoint.save_best == [
        'frequency_group/segm_AP',
        'pascal_voc/mAP',
    ]
    assert stage.custom_hooks == config.custom_hooks


def test_a_watched_key_trains(project):
    with open('tiny.py', 'a') as file:
        file.write(
            """
default_hooks['checkpoint'].update(save_best='coco/bbox_mAP', rule='greater')
custom_hooks = [dict(type='EarlyStoppingHook', monitor='coco/bbox_mAP')]
param_scheduler = [
    dict(type='ReduceOnPlateauLR', monitor='coco/bbox_mAP', rule='greater')]
"""
        )
    config = Config.fromfile(write('softmax'))
    config.work_dir = str(project / 'run')
    Runner.from_cfg(config).train()
    assert [*(project / 'run').glob('best_frequency_group_bbox_AP_*.pth')]


@pytest.mark.parametrize('absolute', [False, True])
def test_file_names_that_lead_to_the_images(absolute, project):
    """Names from the annotation file on, and absolute ones."""
    folder = project / 'data' / 'annotations'
    folder.mkdir()
    prefix = f'{project}/data/images/' if absolute else '../images/'
    for name in ('train.json', 'val.json'):
        content = json.loads((project / 'data' / name).read_text())
        for image in content['images']:
            image['file_name'] = prefix + image['file_name']
        (folder / name).write_text(json.dumps(content))
    path = make_config(
        'data',
        'annotations/train.json',
        'annotations/val.json',
        'softmax',
        base=['tiny.py'],
    )
    dataset = DATASETS.build(Config.fromfile(path).train_dataloader.dataset)
    assert dataset[0]['inputs'].shape[0] == 3


def test_base_with_a_concatenated_dataset(project):
    base = 'mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712.py'
    config = Config.fromfile(write('softmax', base=[base]))
    dataset = config.train_dataloader.dataset
    assert dataset.type == 'AnnotationFileDataset'
    assert [step.type for step in dataset.pipeline][-1] == 'PackDetInputs'
    assert 'datasets' not in dataset
    assert config.model.roi_head.bbox_head.num_classes == 4
    assert config.val_evaluator.type == 'FrequencyGroupMetric'


def test_base_without_a_pipeline(project):
    config = Config.fromfile('tiny.py')
    del config.train_dataloader.dataset['pipeline']
    config.dump('mine.py')
    with pytest.raises(LongTailError, match=r'^mine\.py: train_dataloader'):
        write('softmax', base=['mine.py'])


def test_data_that_training_refuses(project):
    path = project / 'data' / 'train.json'
    content = json.loads(path.read_text())
    del content['annotations'][3]['area']
    path.write_text(json.dumps(content))
    with pytest.raises(LongTailError, match=r'train\.json: .*area'):
        write('softmax')
    assert not (project / 'data_softmax.py').exists()


def test_imports_of_the_base_stay(project, monkeypatch):
    monkeypatch.syspath_prepend(project)
    (project / 'own_module.py').write_text('')
    text = (project / 'tiny.py').read_text()
    text = text.replace("['mmdet_longtail']", "['own_module']")
    (project / 'own.py').write_text(text)
    imports = Config.fromfile(write('eql', base=['own.py'])).custom_imports
    assert imports.imports == ['own_module', 'mmdet_longtail']

"""Faults that are planted in a training, and found without training it."""

import json

import cv2
import numpy as np
import pytest
import torch
from hook_runs import BAGS, config_of
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from PIL import Image
from tiny import CLASS_NAMES, make_data, write_config

from mmdet_longtail.apis.check import check_run_config, check_training
from mmdet_longtail.structures.findings import Severity

ONLY_FC_CLS = dict(
    type='TrainOnlyHook', trainable=['roi_head.bbox_head.fc_cls']
)
METRIC = 'frequency_group/bbox_AP'
BEST = 'default_hooks.checkpoint.save_best'
RULE = 'default_hooks.checkpoint.rule'


@pytest.fixture
def data(tmp_path):
    return make_data(tmp_path / 'data', num_train=6, num_val=3)


def config_for(data, **overrides):
    ann_file = str(data / 'val.json')
    settings = {
        'val_evaluator.type': 'FrequencyGroupMetric',
        'val_evaluator.ann_file': ann_file,
        'test_evaluator.type': 'FrequencyGroupMetric',
        'test_evaluator.ann_file': ann_file,
        **overrides,
    }
    return config_of(data, data.parent / 'work', BAGS, **settings)


def found(data, severity=Severity.ERROR, **overrides):
    """The findings of a severity, in one text."""
    findings = check_run_config(config_for(data, **overrides))
    assert findings == sorted(findings, key=lambda f: -f.severity)
    return '\n'.join(f.message for f in findings if f.severity is severity)


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def save(path, **content):
    torch.save(content, path)
    return dict(load_from=str(path))


def test_training_without_a_fault_has_notes_only(data):
    findings = check_run_config(config_for(data))
    assert {f.severity for f in findings} <= {Severity.NOTE, Severity.WARNING}
    assert '3 iterations per epoch' in ' '.join(f.message for f in findings)
    assert not (data.parent / 'work' / 'vis_data').exists()


def test_a_second_check_in_a_process_warns_of_nothing(data, recwarn):
    visualizer = dict(type='DetLocalVisualizer', name='visualizer')
    for _ in range(2):
        found(data, visualizer=visualizer)
    assert not [w for w in recwarn if 'visualizer' in str(w.message)]


def test_resumable_training(data):
    assert not found(data, runner_type='mmdet.ResumableRunner')


def test_config_that_cannot_be_read_is_the_only_finding(tmp_path):
    (tmp_path / 'broken.py').write_text('model = dict(')
    [finding] = check_training(tmp_path / 'broken.py')
    assert finding.severity is Severity.ERROR


# -- images ----------------------------------------------------------------


def test_unreadable_missing_and_resized_images(data):
    (data / 'images' / 'train_2.png').write_bytes(b'')
    assert 'train_2.png (not an image)' in found(data)
    (data / 'images' / 'train_2.png').unlink()
    assert 'train_2.png (missing)' in found(data)
    small = np.zeros((32, 48, 3), np.uint8)
    cv2.imwrite(str(data / 'images' / 'train_2.png'), small)
    assert '(48 x 32, annotated as 64 x 64)' in found(data)


def test_image_turned_by_exif(data):
    path = data / 'images' / 'train_1.jpg'
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (64, 48)).save(path, exif=exif)
    edit(
        data / 'train.json',
        lambda d: d['images'][1].update(file_name='train_1.jpg', height=48),
    )
    assert 'EXIF' in found(data)


# -- classes and evaluators ------------------------------------------------


def test_validation_file_with_categories_in_another_order(data):
    edit(data / 'val.json', lambda d: d['categories'].reverse())
    for metric in ('CocoMetric', 'FrequencyGroupMetric'):
        text = found(data, **{'val_evaluator.type': metric})
        assert f'class 0 is {CLASS_NAMES[-1]!r}' in text


def test_metric_with_the_file_of_other_images(data):
    edit(
        data / 'val.json',
        lambda d: (
            [i.update(id=i['id'] + 100) for i in d['images']]
            + [
                a.update(image_id=a['image_id'] + 100)
                for a in d['annotations']
            ]
        ),
    )
    train = str(data / 'train.json')
    text = found(data, **{'val_evaluator.ann_file': train})
    assert 'lacks 3 of the 3 images' in text


def test_images_with_the_same_id_in_concatenated_sets(data):
    config = config_for(data)
    part = config.val_dataloader.dataset
    config.val_dataloader.dataset = dict(
        type='ConcatDataset', datasets=[part, part]
    )
    findings = check_run_config(config)
    assert '2 images have the id' in ' '.join(f.message for f in findings)


def test_metric_without_a_file_needs_instances(data):
    ann_file = {'val_evaluator.ann_file': None}
    assert "'instances'" in found(data, **ann_file)
    keys = ('img_id', 'ori_shape', 'instances')
    pipeline = 'val_dataloader.dataset.pipeline'
    config = config_for(data, **ann_file)
    config.merge_from_dict({f'{pipeline}.3.meta_keys': keys})
    errors = [
        f.message
        for f in check_run_config(config)
        if f.severity is Severity.ERROR
    ]
    assert not errors


@pytest.mark.parametrize(
    'settings, key',
    [
        ({BEST: 'coco/bbox_mAP', RULE: 'greater'}, METRIC),
        ({BEST: 'bbox_mAP', RULE: 'greater'}, METRIC),
        (
            {
                'default_hooks.stop': dict(
                    type='EarlyStoppingHook',
                    monitor='coco/bbox_mAP',
                    rule='greater',
                )
            },
            METRIC,
        ),
        (
            {
                'param_scheduler': [
                    dict(type='ReduceOnPlateauLR', monitor='coco/bbox_mAP')
                ]
            },
            METRIC,
        ),
    ],
)
def test_key_that_no_metric_reports(data, settings, key):
    assert key in found(data, **settings)


def test_keys_that_are_reported(data):
    settings = {
        BEST: [METRIC, 'frequency_group/bbox_APr'],
        RULE: 'greater',
        'val_evaluator.bin_edges': (2, 4),
        'default_hooks.stop': dict(
            type='EarlyStoppingHook',
            monitor='frequency_group/bbox_AP_2_to_4',
            rule='greater',
        ),
    }
    assert not found(data, **settings)


# -- load_from -------------------------------------------------------------


def weights_of(data, **overrides):
    config = config_for(data, **overrides)
    init_default_scope('mmdet')
    return MODELS.build(config.model).state_dict()


def test_load_from_that_fits_nothing(data):
    weights = weights_of(data)
    path = data.parent / 'weights.pth'
    prefixed = {f'detector.{k}': v for k, v in weights.items()}
    backbone = {
        k.removeprefix('backbone.'): v
        for k, v in weights.items()
        if k.startswith('backbone.')
    }
    for content in (
        dict(model=weights),
        dict(epoch=1),
        dict(state_dict=prefixed, meta={}),
        dict(state_dict=backbone, meta={}),
    ):
        assert 'load_from' in found(data, **save(path, **content))
    assert not found(data, **save(path, state_dict=weights, meta={}))


def test_frozen_parameters_that_are_not_loaded(data):
    frozen = {'default_hooks.train_only': ONLY_FC_CLS}
    weights = weights_of(data)
    path = data.parent / 'weights.pth'
    assert not found(data, **frozen, **save(path, state_dict=weights, meta={}))
    no_neck = {k: v for k, v in weights.items() if 'neck' not in k}
    loaded = save(path, state_dict=no_neck, meta={})
    assert 'frozen' in found(data, **frozen, **loaded)
    assert not found(data, **loaded)


def test_wider_backbone(data):
    wide = weights_of(
        data,
        **{
            'model.backbone.base_channels': 16,
            'model.neck.in_channels': [16, 32, 64, 128],
        },
    )
    path = data.parent / 'weights.pth'
    assert 'backbone' in found(data, **save(path, state_dict=wide, meta={}))


# -- settings --------------------------------------------------------------


def test_sampler_that_repeats_nothing(data):
    sampler = dict(
        _delete_=True, type='RepeatFactorSampler', oversample_thr=1e-4
    )
    text = found(
        data, Severity.WARNING, **{'train_dataloader.sampler': sampler}
    )
    assert 'repeats no image' in text


def test_batch_that_is_larger_than_the_set(data):
    settings = {
        'train_dataloader.batch_size': 100,
        'train_dataloader.drop_last': True,
    }
    assert 'no batch' in found(data, **settings)


def test_score_threshold_that_drops_the_tail(data):
    settings = {'model.test_cfg.rcnn.score_thr': 0.05}
    assert 'score_thr' in found(data, Severity.WARNING, **settings)


@pytest.mark.parametrize(
    ('settings', 'words'),
    [
        ({'train_cfg.max_epochs': 0}, '0 iterations'),
        ({'train_cfg.val_interval': 0}, 'val_interval is 0'),
        ({'train_dataloader.dataset.pipeline': []}, 'pipeline is empty'),
        ({'model.test_cfg.rcnn.score_thr': '0.05'}, 'score_thr is'),
        ({'optim_wrapper.optimizer.type': 'SDG'}, "did you mean 'SGD'"),
        (
            {
                'param_scheduler': [
                    dict(type='MultiStepLR', begin=5, end=1, milestones=[1])
                ]
            },
            'end should be larger',
        ),
        (
            {
                'hook': dict(
                    type='ClassStatisticsHook', class_statistics='no.json'
                )
            },
            'no.json: no such file',
        ),
        ({'hook': None}, 'there are no class statistics'),
    ],
)
def test_setting_that_fails_late_or_never(data, settings, words):
    assert words in found(data, **settings)


def test_options_of_train(data, tmp_path):
    path = write_config(tmp_path / 'c.py', data)
    for options, words in (
        (dict(resume='no.pth'), 'resume: no.pth: no such checkpoint'),
        (dict(auto_scale_lr=True), '--auto-scale-lr: '),
    ):
        findings = check_training(path, **options)
        assert words in str(findings[0].message)

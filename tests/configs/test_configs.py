"""Every shipped config builds at full size, and trains when it is shrunken."""

from __future__ import annotations

import ast
import copy
import functools
import re
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
import support
import torch
from mmcv.ops import DeformConv2d
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData

from mmdet_longtail.models.losses import LongTailLoss
from mmdet_longtail.models.roi_heads.bbox_heads import LongTailBBoxHeadMixin
from mmdet_longtail.models.utils.head_support import check_head_support
from mmdet_longtail.structures.class_statistics import ClassStatistics

ROOT = Path(__file__).parents[2]
# The classification configs need mmpretrain: see their own tests.
CONFIGS = sorted(
    path
    for path in (ROOT / 'configs').glob('*/*.py')
    if path.parent.name not in ('_base_', 'classification')
)
README = (ROOT / 'README.md').read_text()
README_CONFIGS = re.findall(
    r'```python\n(# .*?\n_base_ = .*?)```', README, flags=re.DOTALL
)


def name_of(path):
    return path.stem


@pytest.fixture(scope='module', autouse=True)
def mmdet_scope():
    init_default_scope('mmdet')


@functools.cache
def read(path):
    return Config.fromfile(path)


def load(path):
    """A config to change; reading takes half a second."""
    return copy.deepcopy(read(path))


def as_list(value):
    return value if isinstance(value, list) else [value] if value else []


def bbox_heads(config):
    return as_list(config.model.get('roi_head', config.model).bbox_head)


def shrink(config):
    """The same parts with a few channels each, and a few proposals."""
    model = config.model
    model.train_cfg.rpn_proposal.update(nms_pre=50, max_per_img=20)
    model.test_cfg.rpn.update(nms_pre=50, max_per_img=20)
    model.test_cfg.rcnn.max_per_img = 10
    model.backbone.init_cfg = None
    if model.roi_head.get('shared_head'):
        # Its layers have the full width, so all that feeds it must.
        model.roi_head.shared_head.init_cfg = None
        return config
    if model.backbone.type == 'MobileNetV2':  # small as it is
        return config
    model.backbone.base_channels = 4
    if 'groups' in model.backbone:
        model.backbone.update(groups=2, depth=50)
    expansion = 1 if model.backbone.depth < 50 else 4
    model.neck.in_channels = [expansion * 4 * 2**i for i in range(4)]
    model.neck.out_channels = 8
    model.rpn_head.update(in_channels=8, feat_channels=8)
    roi_head = model.roi_head
    for part in ('bbox', 'mask', 'semantic'):
        for extractor in as_list(roi_head.get(f'{part}_roi_extractor')):
            extractor.out_channels = 8
    for head in bbox_heads(config):
        head.update(in_channels=8, fc_out_channels=8)
    for part in ('mask', 'semantic'):
        for head in as_list(roi_head.get(f'{part}_head')):
            head.update(in_channels=8, conv_out_channels=8)
    return config


def give_statistics(model, num_classes):
    count = np.random.default_rng(0).geometric(0.01, num_classes)
    statistics = ClassStatistics(
        tuple(map(str, range(num_classes))),
        count,
        2 * count,
        50000,
        count.max(),
    )
    for module in model.modules():
        if isinstance(module, LongTailLoss):
            module.set_class_statistics(statistics)


def build_on_meta(config):
    with torch.device('meta'):
        return MODELS.build(config.model)


def take_a_dense_step(config):
    model = support.build(support.shrink(config.model.to_dict()))
    check_head_support(model)
    support.give_statistics(model)
    assert 0 < support.take_a_step(model) < 100
    if isinstance(model.bbox_head.loss_cls, LongTailLoss):
        support.check_predictions(model)


def take_a_step(config):
    if 'roi_head' not in config.model:
        take_a_dense_step(config)
        return
    torch.manual_seed(0)
    num_classes = bbox_heads(config)[0].num_classes
    # ECM has no prior, and its authors warm up for 10,000 iterations.
    kind = bbox_heads(config)[0].get('loss_cls', {}).get('type')
    limit = 1e4 if kind == 'EffectiveClassMarginLoss' else 10
    model = MODELS.build(shrink(config).model)
    model.init_weights()
    give_statistics(model, num_classes)
    inputs = demo_mm_inputs(
        2,
        [(3, 96, 96)] * 2,
        num_classes=num_classes,
        with_mask=bool(config.model.roi_head.get('mask_head')),
    )
    data = model.data_preprocessor(inputs, training=True)
    for sample in data['data_samples']:  # those of a federated dataset
        present = sample.gt_instances.labels.unique().tolist()
        sample.set_metainfo(dict(present_labels=present, absent_labels=[0]))
        stuff = torch.zeros(1, *sample.img_shape, dtype=torch.long)
        sample.gt_sem_seg = PixelData(sem_seg=stuff)
    losses = model.forward(**data, mode='loss')
    total, logged = model.parse_losses(losses)
    total.backward()
    gradients = [
        parameter.grad
        for name, parameter in model.named_parameters()
        if 'fc_cls' in name
    ]
    assert all(g is not None and g.isfinite().all() for g in gradients)
    for name, value in logged.items():
        if 'loss_cls' in name:  # cascades name them by stage
            assert value < limit, name  # 1203 sigmoids at 0.5: 834
    model.eval()
    with torch.no_grad():
        data = model.data_preprocessor(inputs, training=False)
        for result in model.forward(**data, mode='predict'):
            labels = result.pred_instances.labels
            assert len(labels) == 0 or labels.max() < num_classes


@pytest.mark.parametrize('path', CONFIGS, ids=name_of)
def test_config_builds_at_full_size(path):
    config = load(path)
    model = build_on_meta(config)
    # mmcv and mmdet make a few parameters on the CPU, whatever the device.
    on_cpu = [
        name
        for module in model.modules()
        if not isinstance(module, DeformConv2d)
        for name, parameter in module.named_parameters(recurse=False)
        if not parameter.is_meta
    ]
    assert set(on_cpu) <= {'level_embed'}
    for head in bbox_heads(config):
        num_classes = head.loss_cls.get('num_classes', head.num_classes)
        assert head.num_classes == num_classes
    names = [name for name, _ in model.named_parameters()]
    hook = config.get('default_hooks', {}).get('train_only', {})
    for pattern in hook.get('trainable', []):
        assert any(
            fnmatch(n, pattern) or fnmatch(n, f'{pattern}.*') for n in names
        ), pattern


@pytest.mark.parametrize('path', CONFIGS, ids=name_of)
def test_config_is_short_and_has_a_header(path):
    text = path.read_text()
    code = [
        line
        for line in text.splitlines()
        if line.strip() and not line.startswith('#')
    ]
    assert len(code) <= 15
    assert text.startswith('#'), 'no header'
    command = re.search(r'# Run: (?:python )?(\S+) (\S+)', text)
    assert command, 'the header has no command'
    for file in command.groups():
        assert (ROOT / file).exists(), file


@pytest.mark.parametrize('path', CONFIGS, ids=name_of)
def test_large_vocabularies_have_the_fast_nms(path):
    config = load(path)
    if 'roi_head' not in config.model:
        return
    for head in bbox_heads(config):
        if head.num_classes > 1000:
            assert issubclass(MODELS.get(head.type), LongTailBBoxHeadMixin)


def num_classes_of(config):
    return [head.num_classes for head in bbox_heads(config)]


def without_classifier(config):
    """What a second stage has to share with the detector it starts from."""
    model = copy.deepcopy(config.model.to_dict())
    model.pop('test_cfg')
    model['roi_head'].pop('type')
    for head in as_list(model['roi_head']['bbox_head']):
        for key in ('type', 'loss_cls', 'cls_predictor_cfg'):
            head.pop(key, None)
        # Boxes that all classes share fit a classifier of other classes.
        if head.get('reg_class_agnostic'):
            head.pop('num_classes')
    return model


@pytest.mark.parametrize('path', CONFIGS, ids=name_of)
def test_second_stage_goes_on_where_its_base_ends(path):
    config = read(path)
    if 'base_config' not in config:
        assert 'work_dirs/' not in (config.get('load_from') or '')
        return
    base_path = (path.parent / config.base_config).resolve()
    base = read(base_path)
    end = f'epoch_{base.train_cfg.max_epochs}.pth'
    assert config.load_from == f'work_dirs/{base_path.stem}/{end}'
    assert without_classifier(config) == without_classifier(base)
    if 'restart_classifier' not in config.default_hooks:
        assert num_classes_of(config) == num_classes_of(base)
    test_pipelines = [
        c.test_dataloader.dataset.pipeline for c in (config, base)
    ]
    assert test_pipelines[0] == test_pipelines[1]


def test_config_names_are_unique():
    """mim looks a config up by its file name."""
    names = [path.name for path in CONFIGS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize('path', CONFIGS, ids=name_of)
def test_no_repeat_factor_sampling_unless_the_name_says_so(path):
    dataloader = load(path).train_dataloader
    resamples = dataloader.sampler.type == 'RepeatFactorSampler'
    assert resamples == ('rfs' in path.stem)
    repeats = dataloader.dataset.get('oversample_thr', 0)
    assert repeats == 0, 'the wrapper resamples, too'


ONE_OF_A_KIND = [
    'cascade-mask-rcnn_r50_fpn_eql_25e_lvis-v0.5',
    'faster-rcnn_r50_fpn_eql_1x_openimages-challenge2019',
    'mask-rcnn_r50-c4_eql_25e_lvis-v0.5',
    'mask-rcnn_r50_fpn_eql_ms-1x_lvis-v1',
    'mask-rcnn_r50_fpn_bags-classifier_ms-1x_lvis-v1',
    'cascade-rcnn_x101-64x4d_fpn_bags-classifier_1x_lvis-v0.5',
    'htc_x101-64x4d_fpn_bags-classifier_20e_lvis-v0.5',
    'faster-rcnn_r50_fpn_lws_1x_lvis-v0.5',
    'mask-rcnn_r50_fpn_balanced-softmax-classifier_ms-1x_lvis-v1',
    'mask-rcnn_r50_fpn_ebl_ms-6e_lvis-v1',
    'mask-rcnn_r50_fpn_ecm-rfs_ms-1x_lvis-v1',
    'mask-rcnn_r50_fpn_eqlv2_ms-1x_lvis-v1',
    'mask-rcnn_r50_fpn_seesaw_ms-2x_lvis-v1',
    'mask-rcnn_r50_fpn_verified-federated-rfs_ms-2x_lvis-v1',
    'mask-rcnn_r50_fpn_gumbel-droploss-rfs_ms-2x_lvis-v1',
    'atss_r50_fpn_efl-rfs_ms-2x_lvis-v1',
    'gfl_r50_fpn_eqfl-rfs_ms-2x_lvis-v1',
]


@pytest.mark.parametrize(
    'path',
    [
        pytest.param(
            path,
            id=path.stem,
            marks=[] if path.stem in ONE_OF_A_KIND else [pytest.mark.slow],
        )
        for path in CONFIGS
    ],
)
def test_config_takes_a_training_step(path):
    take_a_step(load(path))


# -- the examples of the README ----------------------------------------------


def test_readme_shows_a_config():
    assert len(README_CONFIGS) == 1


@pytest.mark.parametrize('text', README_CONFIGS)
def test_readme_config_builds_and_trains(text, tmp_path):
    path = tmp_path / 'readme.py'
    path.write_text(text)
    build_on_meta(Config.fromfile(path))
    take_a_step(Config.fromfile(path))


@pytest.mark.parametrize('text', README_CONFIGS)
def test_readme_config_changes_four_keys(text):
    changed = {
        target.id
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign)
        for target in node.targets
    }
    assert changed == {
        '_base_',
        'custom_imports',
        'default_hooks',
        'val_evaluator',
        'test_evaluator',
        'model',
    }
    assert 'loss_cls=dict(' in text and 'score_thr=1e-4' in text

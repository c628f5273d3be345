"""Every head trains and predicts as its loss needs, or is refused at once."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import mmdet
import pytest
import support
import torch
from mmdet.models.dense_heads import DeformableDETRHead, RetinaHead
from mmdet.models.mot import BaseMOTModel
from mmdet.models.roi_heads.bbox_heads import BBoxHead, Shared2FCBBoxHead
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from tiny import make_data, write_config
from tool_runs import environment

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.losses import LongTailLoss
from mmdet_longtail.models.utils.head_support import (
    DENSE_CLASSES,
    METHODS,
    ROI_CLASSES,
    check_head_support,
    unsupported_method,
)

DOCUMENTED = support.documented()


@pytest.fixture(autouse=True)
def in_mmdet(monkeypatch):
    monkeypatch.chdir(support.CONFIGS.parent)
    init_default_scope('mmdet')


def model_of(config):
    return support.read_model(support.CONFIGS / config).to_dict()


BAGS = 'BalancedGroupSoftmaxLoss'
DENSE_EQL = 'DenseEqualizationLoss'
FASTER = 'faster_rcnn/faster-rcnn_r101-caffe_fpn_1x_coco.py'
CASCADE = 'cascade_rcnn/cascade-mask-rcnn_r101-caffe_fpn_1x_coco.py'
HTC = 'htc/htc-without-semantic_r50_fpn_1x_coco.py'
RETINA = 'retinanet/retinanet_r101-caffe_fpn_1x_coco.py'
DEFORMABLE = (
    'deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py'
)
DOUBLE = 'double_heads/dh-faster-rcnn_r50_fpn_1x_coco.py'
SABL = 'sabl/sabl-faster-rcnn_r101_fpn_1x_coco.py'
GFL = 'gfl/gfl_r101-dconv-c3-c5_fpn_ms-2x_coco.py'


@pytest.mark.parametrize(
    'config, name',
    [
        (FASTER, 'SyncSeesawLoss'),
        (CASCADE, 'EqualizationLossV2'),
        (HTC, 'BalancedGroupSoftmaxLoss'),
        (DOUBLE, 'EffectiveClassMarginLoss'),
        (DOUBLE, 'FederatedLoss'),
        (RETINA, 'DenseFederatedLoss'),
        ('atss/atss_r101_fpn_1x_coco.py', 'EqualizedFocalLoss'),
        ('fcos/fcos_r101-caffe_fpn_gn-head-1x_coco.py', 'EqualizedFocalLoss'),
        (DEFORMABLE, 'DenseEqualizationLoss'),
        (SABL, 'BalancedSoftmaxLoss'),
        (GFL, 'EqualizedFocalLoss'),
        (GFL, 'EqualizedQualityFocalLoss'),
        (RETINA, 'DropLoss'),
    ],
)
def test_a_loss_does_what_the_document_says(config, name):
    model = model_of(config)
    trial = support.try_loss(support.shrink(model), name)
    answer = DOCUMENTED[Path(config).parts[0], support.family_of(model)]
    if support.has_loss(answer, name):
        assert trial.state == support.WORKS
        assert 0 < trial.first_loss < 50
    else:
        assert trial.state == support.REFUSED
        assert '\n' not in trial.reason
        assert 'bbox_head' in trial.reason and 'use ' in trial.reason


@pytest.mark.parametrize(
    'config',
    [
        FASTER,
        DOUBLE,
        RETINA,
        GFL,
    ],
)
def test_all_losses_are_checked_as_the_document_says(config):
    model = support.shrink(model_of(config))
    answer = DOCUMENTED[Path(config).parts[0], support.family_of(model)]
    for name in support.all_losses():
        built = support.build_without_weights(support.override(model, name))
        if support.has_loss(answer, name):
            check_head_support(built)
        else:
            with pytest.raises(LongTailError):
                check_head_support(built)


def test_the_document_names_all_losses():
    registered = {
        name
        for name, kind in MODELS.module_dict.items()
        if isinstance(kind, type)
        and issubclass(kind, LongTailLoss)
        and kind.__module__.startswith('mmdet_longtail.')
    }
    named = {*support.all_losses(), *support.ELSEWHERE.split()}
    assert named == registered
    for name in named:
        assert f'`{name}`' in support.DOCUMENT.read_text()


@pytest.mark.slow
def test_document_is_what_the_sweep_finds():
    rows = support.sweep([])
    assert {row.folder for row in rows} == {
        path.name
        for path in support.CONFIGS.iterdir()
        if path.is_dir() and path.name not in ('_base_', '__pycache__')
    }
    for row in rows:
        assert DOCUMENTED[row.folder, row.family] == row.answer()


def test_every_folder_is_documented():
    documented = {folder for folder, _ in DOCUMENTED}
    folders = {
        path.name
        for path in support.CONFIGS.iterdir()
        if path.is_dir() and path.name not in ('_base_', '__pycache__')
    }
    # The forks have a detector of lanes besides.
    assert documented == folders - {'clrnet'}
    answers = {answer.partition(':')[0] for answer in DOCUMENTED.values()}
    assert answers == {*support.ANSWERS.values(), support.NOT_APPLICABLE}


# -- default deny ------------------------------------------------------------


def heads_that_work():
    return {
        name
        for (_, family), answer in DOCUMENTED.items()
        if answer != support.REFUSED and answer in support.ANSWERS.values()
        for name in family.split(' + ')
    }


def test_mmdets_own_heads_are_refused_unless_documented_as_working():
    """Or inherit all that counts from one that is."""
    working = heads_that_work()
    for name, kind in MODELS.module_dict.items():
        if not kind.__module__.startswith('mmdet.models'):
            continue
        if not name.endswith('Head') or name in working:
            continue
        own = any(method in vars(kind) for method in METHODS)
        if own and kind not in (*ROI_CLASSES, *DENSE_CLASSES):
            assert unsupported_method(kind, ROI_CLASSES) is not None
            assert unsupported_method(kind, DENSE_CLASSES) is not None


def test_trackers_are_refused():
    kinds = [
        kind
        for kind in MODELS.module_dict.values()
        if isinstance(kind, type) and issubclass(kind, BaseMOTModel)
    ]
    assert kinds
    for kind in kinds:
        assert unsupported_method(kind, ROI_CLASSES) is not None


class ForwardOnlyHead(Shared2FCBBoxHead):
    def forward(self, x):
        return super().forward(x)


class OwnPredictionHead(Shared2FCBBoxHead):
    def _predict_by_feat_single(self, *args, **kwargs):
        return super()._predict_by_feat_single(*args, **kwargs)


class OwnLossRetinaHead(RetinaHead):
    def loss_by_feat_single(self, *args, **kwargs):
        return super().loss_by_feat_single(*args, **kwargs)


class DeclaredHead(OwnPredictionHead):
    supports_long_tail_losses = True


class OwnPredictionAgainHead(DeclaredHead):
    def predict_by_feat(self, *args, **kwargs):
        return super().predict_by_feat(*args, **kwargs)


class NarrowHead(Shared2FCBBoxHead):
    """Asks nobody how wide the classifier has to be."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        width = self.fc_cls.in_features
        self.fc_cls = torch.nn.Linear(width, self.num_classes + 1)


def test_a_head_that_only_inherits_is_as_good_as_what_it_inherits():
    assert unsupported_method(ForwardOnlyHead, ROI_CLASSES) is None
    assert unsupported_method(BBoxHead, ROI_CLASSES) is None


def test_a_head_with_its_own_prediction_or_loss_is_refused():
    found = unsupported_method(OwnPredictionHead, ROI_CLASSES)
    assert found == (OwnPredictionHead, '_predict_by_feat_single')
    found = unsupported_method(OwnLossRetinaHead, DENSE_CLASSES)
    assert found == (OwnLossRetinaHead, 'loss_by_feat_single')


def test_a_head_may_declare_its_support():
    """It covers what the head inherits, and not what a subclass overrides."""
    for supported in (ROI_CLASSES, DENSE_CLASSES):
        assert unsupported_method(DeclaredHead, supported) is None
        assert unsupported_method(OwnPredictionAgainHead, supported) == (
            OwnPredictionAgainHead,
            'predict_by_feat',
        )


def test_the_refusal_shows_the_declaration():
    def own(model):
        head = model['roi_head']['bbox_head']
        head.update(
            type=OwnPredictionHead,
            loss_cls=support.loss_of(BAGS),
        )

    def declared(model):
        own(model)
        model['roi_head']['bbox_head']['type'] = DeclaredHead

    assert 'set supports_long_tail_losses = True in OwnPredictionHead' in (
        refusal(FASTER, own)
    )
    check_head_support(built(FASTER, declared))


def built(config, change):
    model = support.shrink(model_of(config))
    change(model)
    return MODELS.build(ConfigDict(model))


def refusal(config, change):
    with pytest.raises(LongTailError) as caught:
        check_head_support(built(config, change))
    assert '\n' not in str(caught.value)
    return str(caught.value)


def test_wrong_loss_for_the_kind_of_head_names_the_right_one():
    eql = support.loss_of('EqualizationLoss')
    dense_eql = support.loss_of(DENSE_EQL)

    def in_retina(model):
        model['bbox_head']['loss_cls'] = copy.deepcopy(eql)

    def in_faster(model):
        model['roi_head']['bbox_head']['loss_cls'] = copy.deepcopy(dense_eql)

    assert 'use DenseEqualizationLoss' in refusal(RETINA, in_retina)
    assert 'use EqualizationLoss' in refusal(FASTER, in_faster)


QUALITY = dict(type='EqualizedQualityFocalLoss', use_sigmoid=True)


@pytest.mark.parametrize(
    'config, loss, words',
    [
        (RETINA, dict(type='FederatedLoss'), 'use DenseFederatedLoss with'),
        (
            FASTER,
            dict(type='DenseFederatedLoss', use_sigmoid=True),
            'use FederatedLoss in a RoI head',
        ),
        (
            FASTER,
            dict(type='VerifiedFederatedLoss'),
            'LongTailStandardRoIHead',
        ),
        (FASTER, QUALITY, 'use EqualizationLossV2 in a RoI head'),
        (RETINA, dict(type='EqualizedFocalLoss'), 'set use_sigmoid=True'),
        (
            GFL,
            dict(type='EqualizedFocalLoss', use_sigmoid=True),
            'GFLHead.loss_by_feat',
        ),
        (
            'tood/tood_r101_fpn_ms-2x_coco.py',
            QUALITY,
            'use a GFLHead',
        ),
    ],
)
def test_the_refusal_of_a_loss_names_what_it_needs(config, loss, words):
    def change(model):
        owner = model.get('roi_head', model)
        owner['bbox_head']['loss_cls'] = dict(loss, num_classes=80)

    assert words in refusal(config, change)


def test_a_quality_focal_loss_learns_the_quality_in_gfl_and_detr():
    def change(model):
        model['bbox_head']['loss_cls'] = dict(QUALITY, num_classes=80)

    for config in (GFL, 'dino/dino-4scale_r50_8xb2-12e_coco.py'):
        model = built(config, change)
        model.init_weights()
        check_head_support(model)
        targets = []
        model.bbox_head.loss_cls.register_forward_pre_hook(
            lambda _, args, found=targets: found.append(args[1])
        )
        assert 0 < support.take_a_step(model) < 50
        assert all(len(target) == 2 for target in targets) and targets
        assert any(0 < quality.max() <= 1 for _, quality in targets)
        support.check_predictions(model)


def test_region_proposals_are_not_classes():
    def change(model):
        model['rpn_head']['loss_cls'] = dict(
            support.loss_of(DENSE_EQL), num_classes=1
        )

    assert 'model.rpn_head (RPNHead)' in refusal(FASTER, change)


def test_classifier_of_another_width_is_refused():
    def fewer_classes(model):
        loss = support.loss_of(DENSE_EQL) | dict(num_classes=7)
        model['bbox_head']['loss_cls'] = loss

    assert 'has 80 channels' in refusal(RETINA, fewer_classes)

    def narrow(model):
        head = model['roi_head']['bbox_head']
        head['type'] = NarrowHead
        head['loss_cls'] = support.loss_of(BAGS)

    assert 'has 81 channels' in refusal(FASTER, narrow)

    def more_classes(model):
        loss = support.loss_of('EqualizationLoss') | dict(num_classes=90)
        model['roi_head']['bbox_head']['loss_cls'] = loss

    line = refusal(FASTER, more_classes)
    assert line.endswith('set the same num_classes in head and loss_cls')


@pytest.mark.parametrize('is_combined', [False, True])
@pytest.mark.parametrize(
    'name, words',
    [
        (BAGS, 'one loss value per row'),
        ('SyncSeesawLoss', 'count them as training rows'),
        ('VerifiedFederatedLoss', 'the images of the proposals'),
    ],
)
def test_losses_that_hard_mining_cannot_call_are_refused(
    name, words, is_combined
):
    def mine(model):
        mining = dict(type='OHEMSampler', num=64, pos_fraction=0.25)
        if is_combined:
            mining = dict(
                type='CombinedSampler',
                num=64,
                pos_fraction=0.25,
                pos_sampler=dict(type='RandomSampler'),
                neg_sampler=dict(type='OHEMSampler'),
            )
        model['train_cfg']['rcnn']['sampler'] = mining
        model['roi_head']['type'] = 'LongTailStandardRoIHead'
        head = model['roi_head']['bbox_head']
        head['type'] = 'LongTailShared2FCBBoxHead'
        head['loss_cls'] = support.loss_of(name)

    error = refusal(FASTER, mine)
    assert 'OHEMSampler' in error and words in error


def test_losses_that_matching_cannot_read_are_refused():
    config = 'detr/detr_r101_8xb2-500e_coco.py'
    trial = support.try_loss(support.shrink(model_of(config)), DENSE_EQL)
    assert trial.state == support.REFUSED
    assert 'FocalLossCost' in trial.reason


# -- Deformable DETR ---------------------------------------------------------


def test_deformable_encoder_would_learn_class_0():
    def change(model):
        model['bbox_head']['loss_cls'] = support.loss_of(
            'DenseEqualizationLoss'
        )

    assert 'LongTailDeformableDETRHead' in refusal(DEFORMABLE, change)


def test_deformable_head_with_mmdets_loss_is_mmdets_head():
    """With the encoder's loss in the decoder, nothing differs."""
    model = support.shrink(model_of(DEFORMABLE))
    losses = []
    for kind in ('DeformableDETRHead', 'LongTailDeformableDETRHead'):
        changed = copy.deepcopy(model)
        changed['bbox_head']['type'] = kind
        detector = support.build(changed)
        inputs = support.make_inputs(detector)
        data = detector.data_preprocessor(inputs, training=True)
        torch.manual_seed(0)  # dropout
        losses.append(detector.forward(**data, mode='loss'))
    assert isinstance(detector.bbox_head, DeformableDETRHead)
    assert losses[0].keys() == losses[1].keys()
    for name, value in losses[0].items():
        torch.testing.assert_close(losses[1][name], value)


# -- what a user sees --------------------------------------------------------


@pytest.mark.parametrize('trainer', ['tools/train.py', 'mmdet'])
def test_training_stops_with_one_line(trainer, tmp_path):
    root = Path(__file__).parents[3]
    config = write_config(tmp_path / 'config.py', make_data(tmp_path / 'data'))
    text = config.read_text().replace(
        "loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False)",
        "loss_cls=dict(type='DenseEqualizationLoss', num_classes=4,"
        ' use_sigmoid=True)',
    )
    text += (
        "\ndefault_hooks['class_statistics'] = "
        "dict(type='ClassStatisticsHook')\n"
    )
    config.write_text(text)
    own = Path(mmdet.__file__).parent / '.mim' / 'tools' / 'train.py'
    script = own if trainer == 'mmdet' else root / trainer
    process = subprocess.run(
        [sys.executable, script, config, '--work-dir', tmp_path / 'work'],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(),
    )
    assert process.returncode == 1
    last = process.stderr.strip().splitlines()[-1]
    assert 'DenseEqualizationLoss is for dense and DETR heads' in last
    if trainer != 'mmdet':
        assert last.startswith('error: ')
        assert 'Traceback' not in process.stderr

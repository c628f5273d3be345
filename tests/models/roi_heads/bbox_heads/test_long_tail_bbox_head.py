"""Detections are mmdet's, and a rank without RoIs trains along."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.models.layers import multiclass_nms
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from ranks import run_on_two_ranks
from torch.nn.parallel import DistributedDataParallel

from mmdet_longtail.models.layers.multiclass_nms import SPLIT_THR
from mmdet_longtail.models.roi_heads.bbox_heads import multiclass_nms_of_best
from mmdet_longtail.structures.class_statistics import ClassStatistics

HEADS = ('Shared2FCBBoxHead', 'Shared4Conv1FCBBoxHead', 'ConvFCBBoxHead')
LOSSES = (
    'SeesawLoss',
    'CrossEntropyLoss',
    'EqualizationLoss',
    'BalancedGroupSoftmaxLoss',
)
PLAIN = dict(type='nms', iou_threshold=0.5)


def boxes_of(kind, num_boxes, rng, size=1000.0):
    """Boxes (num_boxes, 4) inside the image, or as the kind says."""
    corner, width = rng.random((2, num_boxes, 2)) * size / 2
    if kind == 'clustered':
        center = rng.integers(0, 3, (num_boxes, 1))
        corner = (100 + 200 * center + rng.normal(0, 8, (num_boxes, 2))) % size
        width = 150 + rng.normal(0, 8, (num_boxes, 2))
    if kind == 'outside':  # moved by a class, -60 is where 940 was
        corner = rng.choice([-60.0, size - 60], (num_boxes, 1))
        corner = corner + rng.normal(0, 2, (num_boxes, 2))
        width = 60 + rng.normal(0, 2, (num_boxes, 2))
    if kind == 'far outside':
        corner -= size
    if kind == 'tiny at the corners':
        corner = rng.integers(0, 2, (num_boxes, 2)) * size
        width = rng.integers(0, 5, (num_boxes, 2))
    if kind == 'huge':
        corner, width = corner * 1e5, width * 1e5
    if kind == 'flat':
        width[: num_boxes // 2] = 0
    boxes = np.concatenate([corner, corner + width], 1)
    return torch.tensor(boxes, dtype=torch.float32)


KINDS = (
    'random',
    'clustered',
    'outside',
    'far outside',
    'tiny at the corners',
    'huge',
    'flat',
)


def inputs_of(kind, num_rois, num_classes, is_shared, rng):
    """Boxes and scores (num_rois, num_classes + 1) without ties."""
    per_roi = 1 if is_shared else num_classes
    bboxes = boxes_of(kind, num_rois * per_roi, rng).view(num_rois, -1)
    shape = (num_rois, num_classes + 1)
    rank = rng.permutation(np.prod(shape)).reshape(shape)
    return bboxes, torch.tensor(rank / rank.size, dtype=torch.float32)


def assert_same(found, expected):
    for ours, mmdets in zip(found, expected, strict=True):
        assert ours.dtype == mmdets.dtype
        assert torch.equal(ours, mmdets)


@given(
    kind=st.sampled_from(KINDS),
    num_rois=st.integers(1, 30),
    num_classes=st.integers(1, 40),
    is_shared=st.booleans(),
    score_thr=st.sampled_from([1e-4, 0.3, 0.9, 1.0]),
    iou_threshold=st.sampled_from([0.0, 0.3, 0.5, 0.9]),
    max_per_img=st.sampled_from([1, 7, 100, 2000]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_detections_are_mmdets(
    kind,
    num_rois,
    num_classes,
    is_shared,
    score_thr,
    iou_threshold,
    max_per_img,
    seed,
):
    rng = np.random.default_rng(seed)
    arguments = (
        *inputs_of(kind, num_rois, num_classes, is_shared, rng),
        score_thr,
        dict(type='nms', iou_threshold=iou_threshold),
        max_per_img,
    )
    assert_same(multiclass_nms_of_best(*arguments), multiclass_nms(*arguments))


@pytest.mark.parametrize('is_shared', (True, False))
@pytest.mark.parametrize('num_classes', (20, 400))
@pytest.mark.parametrize('kind', KINDS)
def test_detections_are_mmdets_where_it_goes_class_by_class(
    kind, num_classes, is_shared
):
    num_rois = 12_000 // num_classes
    inputs = inputs_of(
        kind, num_rois, num_classes, is_shared, np.random.default_rng(0)
    )
    assert num_rois * num_classes * 0.95 > SPLIT_THR
    for max_per_img in (100, 1500):
        arguments = (*inputs, 0.05, PLAIN, max_per_img)
        assert_same(
            multiclass_nms_of_best(*arguments), multiclass_nms(*arguments)
        )


def test_boxes_that_rounding_would_push_into_the_next_class():
    """20,000 classes lie so far apart that float32 counts in fours there."""
    num_classes, size = 20_000, 2998.5
    bboxes = torch.tensor([[0, 0, 3, 3], [size - 3, size - 3, size, size]])
    scores = torch.zeros(2, num_classes + 1)
    rank = np.random.default_rng(0).permutation(10_400).reshape(2, 5200)
    scores[:, 14_800:-1] = torch.tensor(rank) / 10_400
    arguments = (bboxes, scores, 1e-4, dict(iou_threshold=0.1), 20_000)
    assert_same(multiclass_nms_of_best(*arguments), multiclass_nms(*arguments))


@given(
    kind=st.sampled_from(KINDS),
    num_levels=st.integers(1, 5),
    max_per_img=st.sampled_from([1, 7, 100]),
    is_shared=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=50, deadline=None, derandomize=True)
def test_among_equal_scores_lower_rois_then_lower_classes_come_first(
    kind, num_levels, max_per_img, is_shared, seed
):
    """As mmdet would decide, had it scores in that order."""
    rng = np.random.default_rng(seed)
    bboxes, _ = inputs_of(kind, 30, 20, is_shared, rng)
    scores = torch.tensor(rng.integers(0, num_levels + 1, (30, 21)))
    scores = scores / num_levels  # some are 0, some are 1
    order = scores[:, :-1].flatten().sort(descending=True, stable=True)
    rank = torch.zeros(600)
    rank[order.indices] = torch.arange(600, 0, -1.0)
    rank[scores[:, :-1].flatten() == 0] = 0
    rank = torch.cat([rank.view(30, 20), torch.zeros(30, 1)], 1)
    dets, labels, indices = multiclass_nms(
        bboxes, rank, 0, PLAIN, max_per_img, return_inds=True
    )
    dets[:, 4] = scores[:, :-1].flatten()[indices]
    assert_same(
        multiclass_nms_of_best(bboxes, scores, 0, PLAIN, max_per_img),
        (dets, labels),
    )


def test_nan_scores_are_no_candidates():
    bboxes, scores = inputs_of(
        'clustered', 30, 20, True, np.random.default_rng(0)
    )
    scores[::2] = torch.nan
    arguments = (bboxes, scores, 0.1, PLAIN, 10)
    assert_same(multiclass_nms_of_best(*arguments), multiclass_nms(*arguments))


@pytest.mark.parametrize('width', (4, 80))
def test_no_roi_gives_no_detection(width):
    dets, labels = multiclass_nms_of_best(
        torch.zeros(0, width), torch.zeros(0, 21), 0.1, PLAIN, 10
    )
    assert dets.shape == (0, 5) and dets.dtype == torch.float32
    assert labels.shape == (0,) and labels.dtype == torch.int64


@pytest.mark.parametrize(
    ('nms_cfg', 'max_per_img'),
    (
        (dict(type='soft_nms', iou_threshold=0.5, min_score=0.05), 20),
        (dict(PLAIN, class_agnostic=True), 20),
        (dict(PLAIN, split_thr=100), 20),
        (dict(PLAIN, max_num=5), 20),
        (dict(PLAIN, score_threshold=0.99), 20),
        (dict(PLAIN, offset=1), 20),
        (dict(type='nms', iou_thr=0.5), 20),
        (None, 20),
        (PLAIN, -1),
    ),
)
def test_other_settings_are_mmdets_too(nms_cfg, max_per_img):
    bboxes, scores = inputs_of(
        'clustered', 30, 20, True, np.random.default_rng(0)
    )
    arguments = (bboxes, scores, 0.5, nms_cfg, max_per_img)
    assert_same(multiclass_nms_of_best(*arguments), multiclass_nms(*arguments))


# -- in the RoI heads -------------------------------------------------------


def bbox_head(kind, loss='CrossEntropyLoss', num_classes=40, **kwargs):
    loss_cls = dict(type=loss)
    if loss != 'CrossEntropyLoss':
        loss_cls['num_classes'] = num_classes
    return dict(
        type=kind,
        in_channels=8,
        fc_out_channels=16,
        roi_feat_size=3,
        num_classes=num_classes,
        loss_cls=loss_cls,
        **(dict(conv_out_channels=8) if '4Conv' in kind else {}),
        **(dict(num_cls_fcs=1, num_reg_fcs=1) if 'ConvFC' in kind else {}),
        **kwargs,
    )


def roi_head(family, head):
    """A RoI head of the family with that bbox head, or three of it."""
    cfg = dict(
        type=family,
        bbox_roi_extractor=dict(
            type='SingleRoIExtractor',
            roi_layer=dict(type='RoIAlign', output_size=3, sampling_ratio=1),
            out_channels=8,
            featmap_strides=[8],
        ),
        bbox_head=head,
        test_cfg=dict(score_thr=1e-4, nms=PLAIN, max_per_img=50),
    )
    if family != 'StandardRoIHead':
        cfg.update(
            bbox_head=[copy.deepcopy(head) for _ in range(3)],
            num_stages=3,
            stage_loss_weights=[1, 0.5, 0.25],
        )
    return MODELS.build(ConfigDict(cfg))


def set_class_statistics(model, num_classes=40):
    count = np.arange(num_classes) * 7
    statistics = ClassStatistics(
        class_names=tuple(map(str, range(num_classes))),
        image_count=count,
        instance_count=count,
        num_images=1000,
        num_annotated_images=1000,
    )
    for module in model.modules():
        if hasattr(module, 'set_class_statistics'):
            module.set_class_statistics(statistics)


def predict(family, head):
    """Detections in three images; there is no proposal in the second."""
    torch.manual_seed(0)
    model = roi_head(family, head).eval()
    set_class_statistics(model)
    for name, parameter in model.named_parameters():
        if 'fc_cls' in name:
            torch.nn.init.normal_(parameter)
    rng = np.random.default_rng(0)
    proposals = [
        InstanceData(bboxes=boxes_of('clustered', count, rng) / 10)
        for count in (60, 0, 30)
    ]
    samples = [
        DetDataSample(
            metainfo=dict(
                img_shape=(96, 128),
                ori_shape=(48, 64),
                scale_factor=(2.0, 2.0),
            )
        )
        for _ in proposals
    ]
    features = (torch.randn(3, 8, 12, 16),)
    with torch.no_grad():
        return model.predict(features, proposals, samples, rescale=True)


def assert_same_predictions(ours, mmdets):
    for found, expected in zip(ours, mmdets, strict=True):
        assert sorted(found.keys()) == sorted(expected.keys())
        for key, value in expected.items():
            assert torch.equal(found[key], value)
    assert len(ours[0]) > 20 and len(ours[1]) == 0 and len(ours[2]) > 20


@pytest.mark.parametrize('agnostic', (True, False))
@pytest.mark.parametrize(
    'family',
    ('StandardRoIHead', 'CascadeRoIHead', 'HybridTaskCascadeRoIHead'),
)
def test_roi_heads_predict_the_same(family, agnostic):
    head = bbox_head('Shared2FCBBoxHead', reg_class_agnostic=agnostic)
    ours = bbox_head('LongTailShared2FCBBoxHead', reg_class_agnostic=agnostic)
    assert_same_predictions(predict(family, ours), predict(family, head))


@pytest.mark.parametrize('loss', LOSSES)
@pytest.mark.parametrize('kind', HEADS)
def test_heads_predict_the_same(kind, loss):
    assert_same_predictions(
        predict('StandardRoIHead', bbox_head('LongTail' + kind, loss)),
        predict('StandardRoIHead', bbox_head(kind, loss)),
    )


def test_without_a_test_config_scores_are_raw():
    head = MODELS.build(bbox_head('LongTailShared2FCBBoxHead'))
    raw = head.predict_by_feat(
        rois=[torch.rand(5, 5)],
        cls_scores=[torch.rand(5, 41)],
        bbox_preds=[torch.rand(5, 160)],
        batch_img_metas=[dict(img_shape=(96, 128))],
    )[0]
    assert raw.bboxes.shape == (5, 160) and raw.scores.shape == (5, 41)


# -- training without RoIs --------------------------------------------------


def losses_of(head, features):
    """Losses of as many RoIs as there are features, half of them positive."""
    num_rois = len(features)
    cls_score, bbox_pred = head(features)
    labels = torch.arange(num_rois) % 2 * 40
    module = getattr(head, 'module', head)
    return module.loss(
        cls_score,
        bbox_pred,
        torch.zeros(num_rois, 5),
        labels,
        torch.ones(num_rois),
        torch.ones(num_rois, 4),
        torch.ones(num_rois, 4),
    )


def total(losses):
    return sum(value for key, value in losses.items() if 'loss' in key)


def train_on_rank(rank):
    """Two steps; only the first rank has RoIs."""
    # Not Seesaw: what it has counted changes its loss from step to step.
    for kind, loss in zip(HEADS, LOSSES[1:], strict=True):
        torch.manual_seed(0)
        head = MODELS.build(bbox_head('LongTail' + kind, loss))
        set_class_statistics(head)
        alone = copy.deepcopy(head)
        features = torch.randn(6, 8, 3, 3)
        total(losses_of(alone, features)).backward()

        head = DistributedDataParallel(head)
        for _ in range(2):  # DDP finds out at the second forward
            head.zero_grad()
            losses = losses_of(head, features if rank == 0 else features[:0])
            total(losses).backward()
        for ours, expected in zip(head.parameters(), alone.parameters()):
            torch.testing.assert_close(ours.grad, expected.grad / 2)


def test_a_rank_without_rois_trains_along():
    run_on_two_ranks(train_on_rank)


@pytest.mark.parametrize('loss', LOSSES)
def test_losses_have_the_same_names_without_rois(loss):
    head = MODELS.build(bbox_head('LongTailShared2FCBBoxHead', loss))
    set_class_statistics(head)
    some = losses_of(head, torch.randn(6, 8, 3, 3))
    none = losses_of(head, torch.randn(0, 8, 3, 3))
    names = {key for key in some if 'loss' in key}
    assert {key for key in none if 'loss' in key} == names
    assert total(none) == 0

"""One contract for every registered loss, then what each paper adds."""

from __future__ import annotations

import inspect
import logging
import math
import re

import naive
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.logging import MMLogger
from ranks import run_on_two_ranks
from torch import nn

from mmdet_longtail import losses as package
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.losses import (
    BalancedGroupSoftmaxLoss,
    BalancedGroupSoftmaxWithoutBackgroundLoss,
    BalancedGroupSoftmaxWithoutOthersLoss,
    DenseEqualizationLoss,
    EqualizationLoss,
    LongTailLoss,
    ReweightedBalancedGroupSoftmaxLoss,
    ReweightedSoftmaxLoss,
    RoIFocalLoss,
    SoftmaxEqualizationClassificationLoss,
    SoftmaxEqualizationLoss,
    TauNormSelectLoss,
    sample_others,
)
from mmdet_longtail.models.losses.base import warn_once
from mmdet_longtail.models.losses.softmax_equalization import sample_ignored
from mmdet_longtail.structures.class_statistics import ClassStatistics

INSTANCE_COUNT = [5, 2000, 0, 60, 400, 9, 150, 31, 1, 30]
C = len(INSTANCE_COUNT)

# A loss that is registered and not listed here fails the contract suite.
CONSTRUCTORS = {
    'EqualizationLoss': dict(frequency_threshold=0.05),
    'DenseEqualizationLoss': dict(use_sigmoid=True, frequency_threshold=0.05),
    'BalancedGroupSoftmaxLoss': dict(others_ratio=1e9),
    # The only class of a bin would win every RoI.
    'BalancedGroupSoftmaxWithoutOthersLoss': dict(bin_edges=(10, 100)),
    'BalancedGroupSoftmaxWithoutBackgroundLoss': dict(others_ratio=1e9),
    'ReweightedBalancedGroupSoftmaxLoss': dict(
        others_ratio=1e9, class_weight=dict(type='InverseClassWeight')
    ),
    'SoftmaxEqualizationLoss': dict(
        frequency_threshold=0.05, ignore_probability=1.0
    ),
    'ReweightedSoftmaxLoss': dict(
        class_weight=dict(type='EffectiveNumberClassWeight', beta=0.9)
    ),
    'RoIFocalLoss': dict(),
    'TauNormSelectLoss': dict(),
}
# Their mean is over some of the rows, or weighted.
WITH_OWN_NUMBER_OF_ROWS = (
    BalancedGroupSoftmaxWithoutOthersLoss,
    ReweightedBalancedGroupSoftmaxLoss,
)
# Image classifiers have no background, so it has tests of its own.
WITHOUT_BACKGROUND = 'SoftmaxEqualizationClassificationLoss'
REGISTERED = sorted(
    name
    for name, module in MODELS.module_dict.items()
    if inspect.isclass(module)
    and issubclass(module, LongTailLoss)
    and name != WITHOUT_BACKGROUND
)
each_loss = pytest.mark.parametrize('name', REGISTERED)


def statistics_of(instance_count, num_images=1000):
    instance_count = np.array(instance_count)
    image_count = np.minimum(instance_count, num_images - 400)
    return ClassStatistics(
        class_names=tuple(f'class_{c}' for c in range(len(instance_count))),
        image_count=image_count,
        instance_count=instance_count,
        num_images=num_images,
        num_annotated_images=int(image_count.max()),
    )


def build(name, statistics=None, **settings):
    loss = MODELS.build(
        dict(type=name, num_classes=C, **CONSTRUCTORS[name]) | settings
    )
    loss.set_class_statistics(statistics or statistics_of(INSTANCE_COUNT))
    return loss


def scores_of(loss, num_rows, seed=0, scale=2.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    width = loss.get_cls_channels(C)
    return scale * torch.randn(
        num_rows, width, generator=generator, dtype=dtype
    )


def labels_of(num_rows, seed=0):
    """Half background, and every class once when there are rows enough."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2 * C, (num_rows,), generator=generator)
    labels[:C] = torch.arange(C)[:num_rows]
    return labels.clamp(max=C)


def total(value):
    return sum(value.values()) if isinstance(value, dict) else value


def naive_rows(loss, scores, labels):
    """The unreduced value of each row, summed over terms."""
    rows = scores.tolist()
    if isinstance(loss, EqualizationLoss):
        return naive.equalization(
            rows, labels.tolist(), loss.tail_weight.tolist(), loss.prior_logit
        )
    if isinstance(loss, SoftmaxEqualizationLoss):
        is_tail = [T == 1 for T in loss.tail_weight.tolist()]
        return naive.softmax_equalization(
            rows, labels.tolist(), C, [is_tail] * len(rows)
        )
    if isinstance(loss, ReweightedSoftmaxLoss):
        weights = naive.class_weights(
            loss.instance_count.tolist(), 'effective number', 0.9
        )
        stored = torch.tensor(weights).tolist()  # in single precision
        return naive.weighted_cross_entropy(rows, labels.tolist(), stored)
    if isinstance(loss, TauNormSelectLoss):
        return naive.weighted_cross_entropy(
            rows, labels.tolist(), [1.0] * (C + 1)
        )
    if isinstance(loss, RoIFocalLoss):
        return naive.focal(
            rows, labels.tolist(), loss.gamma, loss.alpha, loss.prior_logit
        )
    if isinstance(loss, BalancedGroupSoftmaxWithoutOthersLoss):
        return weighted_rows(naive.without_others_terms, loss, scores, labels)
    if isinstance(loss, BalancedGroupSoftmaxWithoutBackgroundLoss):
        return weighted_rows(
            naive.without_background_terms, loss, scores, labels
        )
    if isinstance(loss, ReweightedBalancedGroupSoftmaxLoss):
        weights = naive.bin_class_weights(
            INSTANCE_COUNT, loss.bin_edges, 'inverse', (0.1, 5.0)
        )
        stored = torch.tensor(weights).tolist()  # in single precision
        return weighted_rows(
            naive.reweighted_terms, loss, scores, labels, stored
        )
    return [
        sum(row)
        for row in naive.balanced_group_softmax(
            rows, labels.tolist(), INSTANCE_COUNT, loss.bin_edges
        )
    ]


def weighted_rows(naive_terms, loss, scores, labels, *settings):
    """Each row's loss in each group times its weight there, summed."""
    terms = naive_terms(
        scores.tolist(),
        labels.tolist(),
        INSTANCE_COUNT,
        loss.bin_edges,
        [1.0] * len(labels),
        *settings,
    )
    return [
        sum(weight * value for weight, value in row)
        for row in zip(*terms, strict=True)
    ]


@pytest.fixture
def said(caplog):
    """The warnings of mmengine's logger, which does not propagate."""
    warn_once.cache_clear()
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    yield lambda: [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING
    ]
    logger.removeHandler(caplog.handler)


# -- the contract -----------------------------------------------------------


def test_every_loss_is_in_the_contract():
    assert set(REGISTERED) == set(CONSTRUCTORS)
    assert set(REGISTERED) < set(package.__all__)


@each_loss
@given(seed=st.integers(0, 2**16), scale=st.sampled_from([0.1, 3.0, 1e4]))
@settings(max_examples=20, deadline=None)
def test_rows_equal_the_naive_loop(name, seed, scale):
    loss = build(name)
    scores, labels = scores_of(loss, 14, seed, scale), labels_of(14, seed)
    value = total(loss(scores, labels, reduction_override='none'))
    expected = torch.tensor(
        naive_rows(loss, scores, labels), dtype=torch.float64
    )
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)


@each_loss
def test_gradient(name):
    loss = build(name)
    scores = scores_of(loss, 12).requires_grad_()
    labels = labels_of(12)
    weights = torch.linspace(0, 2, 12, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: total(loss(x, labels, weights, avg_factor=7.0)), scores
    )


@each_loss
def test_backward_twice_gives_the_same_gradient(name):
    loss = build(name)
    scores = scores_of(loss, 12).requires_grad_()
    value = total(loss(scores, labels_of(12)))
    (first,) = torch.autograd.grad(value, scores, retain_graph=True)
    (second,) = torch.autograd.grad(value, scores)
    torch.testing.assert_close(first, second, rtol=0, atol=0)


@each_loss
def test_permuting_the_classes_permutes_the_result(name):
    order = torch.randperm(C, generator=torch.Generator().manual_seed(3))
    loss = build(name)
    permuted = build(
        name, statistics_of([INSTANCE_COUNT[c] for c in order.tolist()])
    )
    scores, labels = scores_of(loss, 20), labels_of(20)
    rest = torch.arange(C, scores.size(1))
    new_scores = scores[:, torch.cat([order, rest])]
    new_labels = torch.cat([order.argsort(), torch.tensor([C])])[labels]
    torch.testing.assert_close(
        total(permuted(new_scores, new_labels)), total(loss(scores, labels))
    )
    torch.testing.assert_close(
        permuted.get_activation(new_scores)[:, :C],
        loss.get_activation(scores)[:, order],
    )


@each_loss
@pytest.mark.parametrize(
    'labels',
    [
        pytest.param([], id='no rows'),
        pytest.param([C] * 6, id='all background'),
        pytest.param([0, 1, 3, 4], id='all foreground'),
        pytest.param([2, 2, C], id='class without training instances'),
    ],
)
@pytest.mark.parametrize('scale', [1.0, 1e4])
@pytest.mark.parametrize(
    'dtype', [torch.float32, torch.float16, torch.bfloat16]
)
def test_edge_batches_are_finite(name, labels, scale, dtype):
    loss = build(name)
    scores = scores_of(loss, len(labels), scale=1.0).clamp(-1, 1)
    scores = (scale * scores).to(dtype).requires_grad_()
    labels = torch.tensor(labels, dtype=torch.int64)
    value = total(loss(scores, labels))
    value.backward()
    assert value.dtype == torch.float32
    assert value.isfinite() and scores.grad.isfinite().all()
    probs = loss.get_activation(scores)
    assert probs.isfinite().all() and (probs >= 0).all() and (probs <= 1).all()


@each_loss
def test_extreme_logits_equal_the_naive_loop_in_float32(name):
    loss = build(name)
    scores = scores_of(loss, 20, scale=1.0, dtype=torch.float32).sign() * 1e4
    labels = labels_of(20)
    value = total(loss(scores, labels, reduction_override='none'))
    expected = torch.tensor(naive_rows(loss, scores, labels))
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-3)


@each_loss
def test_reduction_contract(name):
    loss = build(name)
    scores, labels = scores_of(loss, 16), labels_of(16)
    rows = total(loss(scores, labels, reduction_override='none'))
    assert rows.shape == (16,)
    torch.testing.assert_close(
        total(loss(scores, labels, reduction_override='sum')), rows.sum()
    )
    value = total(loss(scores, labels))
    if not isinstance(loss, WITH_OWN_NUMBER_OF_ROWS):
        torch.testing.assert_close(value, rows.sum() / 16)
    doubled = build(name, loss_weight=2.0)
    torch.testing.assert_close(total(doubled(scores, labels)), 2 * value)
    if not isinstance(loss, BalancedGroupSoftmaxLoss):
        for avg_factor in (5.0, torch.tensor(5.0)):
            torch.testing.assert_close(
                loss(scores, labels, avg_factor=avg_factor),
                rows.sum() / 5,
                check_dtype=False,
            )
    with pytest.raises(LongTailError, match='reduction_override'):
        loss(scores, labels, reduction_override='average')


@each_loss
def test_rows_of_weight_zero_do_not_count(name):
    loss = build(name)
    scores, labels = scores_of(loss, 30), labels_of(30)
    keep = torch.arange(30) % 3 != 0
    value = total(
        loss(scores, labels, keep.double(), avg_factor=keep.sum().item())
    )
    torch.testing.assert_close(value, total(loss(scores[keep], labels[keep])))


@each_loss
def test_state_dict_round_trip(name):
    loss = build(name)
    fresh = MODELS.build(dict(type=name, num_classes=C, **CONSTRUCTORS[name]))
    scores, labels = scores_of(loss, 8), labels_of(8)
    for call in (
        lambda: fresh(scores, labels),
        lambda: fresh.get_activation(scores),
    ):
        with pytest.raises(LongTailError, match='ClassStatisticsHook'):
            call()
    fresh.load_state_dict(loss.state_dict())
    torch.testing.assert_close(
        total(fresh(scores, labels)), total(loss(scores, labels))
    )
    torch.testing.assert_close(
        fresh.get_activation(scores), loss.get_activation(scores)
    )
    empty = MODELS.build(dict(type=name, num_classes=C, **CONSTRUCTORS[name]))
    fresh = MODELS.build(dict(type=name, num_classes=C, **CONSTRUCTORS[name]))
    fresh.load_state_dict(empty.state_dict())
    assert not fresh.has_class_statistics


def bbox_head(loss_config):
    return MODELS.build(
        ConfigDict(
            type='Shared2FCBBoxHead',
            in_channels=4,
            fc_out_channels=8,
            roi_feat_size=2,
            num_classes=C,
            reg_class_agnostic=True,
            loss_cls=loss_config,
        )
    )


in_roi_head = pytest.mark.parametrize(
    'name',
    [name for name in REGISTERED if MODELS.get(name).custom_cls_channels],
)


@in_roi_head
def test_mmdet_head_scores_with_get_activation(name):
    head = bbox_head(dict(type=name, num_classes=C, **CONSTRUCTORS[name]))
    head.loss_cls.set_class_statistics(statistics_of(INSTANCE_COUNT))
    assert head.fc_cls.out_features == head.loss_cls.get_cls_channels(C)
    cls_score = scores_of(head.loss_cls, 5, dtype=torch.float32)
    rois = torch.tensor([[0.0, 0, 0, 10, 10]]).repeat(5, 1)
    _, scores = _raw_predictions(head, rois, cls_score)
    expected = head.loss_cls.get_activation(cls_score)
    torch.testing.assert_close(scores, expected)
    assert scores.shape == (5, C + 1)
    assert (scores >= 0).all() and (scores <= 1).all()
    # background last: a RoI with hopeless class scores is background
    losses = head.loss(
        cls_score,
        torch.zeros(5, 4),
        rois,
        labels_of(5),
        torch.ones(5),
        torch.zeros(5, 4),
        torch.zeros(5, 4),
    )
    assert 'acc_classes' in losses


def _raw_predictions(head, rois, cls_score):
    results = head._predict_by_feat_single(
        roi=rois,
        cls_score=cls_score,
        bbox_pred=torch.zeros(len(rois), 4),
        img_meta=dict(img_shape=(20, 20)),
        rescale=False,
        rcnn_test_cfg=None,
    )
    return results.bboxes, results.scores


@each_loss
def test_accuracy_counts_foreground_rows(name):
    loss = build(name)
    labels = torch.tensor([0, 1, 4, C, C])
    scores = torch.full((5, loss.get_cls_channels(C)), -5.0)
    scores[0, 0] = scores[1, 1] = scores[2, 3] = 5.0  # the third is wrong
    scores[3:, -1] = 5.0
    accuracy = loss.get_accuracy(scores, labels)
    assert accuracy['acc_classes'].item() == pytest.approx(200 / 3)


@each_loss
def test_meta_device(name):
    """No constant on the CPU, no look at a value: either would raise."""
    loss = build(name).to('meta')
    scores = torch.empty(
        7, loss.get_cls_channels(C), device='meta', requires_grad=True
    )
    labels = torch.empty(7, dtype=torch.int64, device='meta')
    weights = torch.empty(7, device='meta')
    total(loss(scores, labels, weights, avg_factor=3.0)).backward()
    total(loss(scores, labels)).backward()
    assert scores.grad.shape == scores.shape
    assert loss.get_activation(scores).shape == (7, C + 1)
    assert loss.get_accuracy(scores, labels)['acc_classes'].is_meta
    with torch.device('meta'):
        MODELS.build(
            dict(type=name, num_classes=C, **CONSTRUCTORS[name])
        ).set_class_statistics(statistics_of(INSTANCE_COUNT))


@each_loss
def test_other_widths_and_classes_are_refused(name):
    loss = build(name)
    for call in (lambda x: loss(x, labels_of(4)), loss.get_activation):
        with pytest.raises(LongTailError, match=r'cls_score has .* columns'):
            call(torch.zeros(4, loss.get_cls_channels(C) + 1))
    with pytest.raises(LongTailError, match=r'num_classes is 10, .* 3 class'):
        loss.set_class_statistics(statistics_of([3, 4, 5]))


@pytest.fixture(scope='module')
def rank_gradients(tmp_path_factory):
    """Folder with the gradient of every loss, <name>_<rank>.pth."""
    folder = tmp_path_factory.mktemp('gradients')
    run_on_two_ranks(_save_gradients, str(folder))
    return folder


def _build_any(name):
    """Build a loss, also the one that needs no background."""
    if name != WITHOUT_BACKGROUND:
        return build(name)
    loss = SoftmaxEqualizationClassificationLoss(
        C, frequency_threshold=0.05, ignore_probability=1.0
    )
    loss.set_class_statistics(statistics_of(INSTANCE_COUNT))
    return loss


@pytest.mark.parametrize('name', [*REGISTERED, WITHOUT_BACKGROUND])
def test_two_ranks_equal_one_big_batch(name, rank_gradients):
    """Equally many rows on each rank, every bin present on both."""
    loss = _build_any(name)
    layer = _layer(loss)
    features = torch.cat([_rank_features(rank) for rank in range(2)])
    labels = torch.cat([_rank_labels(loss, rank) for rank in range(2)])
    total(loss(layer(features), labels)).backward()
    for rank in range(2):
        path = rank_gradients / f'{name}_{rank}.pth'
        gradient = torch.load(path, weights_only=True)
        torch.testing.assert_close(gradient, layer.weight.grad)


def _layer(loss):
    torch.manual_seed(0)
    return nn.Linear(6, loss.get_cls_channels(C)).double()


def _rank_features(rank):
    generator = torch.Generator().manual_seed(rank)
    return torch.randn(20, 6, generator=generator, dtype=torch.float64)


def _rank_labels(loss, rank):
    """Equal sums of weights need equal labels on both ranks."""
    same = isinstance(loss, WITH_OWN_NUMBER_OF_ROWS)
    labels = labels_of(20, seed=0 if same else rank)
    if isinstance(loss, SoftmaxEqualizationClassificationLoss):
        labels = labels % C
    return labels


def _save_gradients(rank, folder):
    for name in [*REGISTERED, WITHOUT_BACKGROUND]:
        loss = _build_any(name)
        layer = nn.parallel.DistributedDataParallel(_layer(loss))
        value = loss(layer(_rank_features(rank)), _rank_labels(loss, rank))
        total(value).backward()
        torch.save(layer.module.weight.grad, f'{folder}/{name}_{rank}.pth')


# -- equalization loss ------------------------------------------------------


def test_equalization_golden_values():
    """Worked by hand from Eq. 7 for three classes."""
    statistics = ClassStatistics(
        ('a', 'b', 'c'), [500, 10, 1], [500, 10, 1], 1000, 510
    )
    scores = torch.tensor(
        [[1, -1, 0.5], [0.2, 0.3, -2], [-1, 2, 0]],
        dtype=torch.float64,
        requires_grad=True,
    )
    labels = torch.tensor([0, 3, 2])
    loss = EqualizationLoss(3, frequency_threshold=1.76e-3, prior_prob=None)
    loss.set_class_statistics(statistics)
    value = loss(scores, labels)
    value.backward()
    # mmdet's mean divides by avg_factor + 1e-7
    assert value.item() == pytest.approx(1.846427459683559, rel=1e-7)
    expected = torch.tensor(
        [
            [-0.089647, 0.089647, 0],
            [0.183278, 0.191481, 0.039734],
            [0.089647, 0.293599, -0.166667],
        ],
        dtype=torch.float64,
    )
    torch.testing.assert_close(scores.grad, expected, rtol=0, atol=1e-6)
    plain = EqualizationLoss(3, frequency_threshold=0.0, prior_prob=None)
    plain.set_class_statistics(statistics)
    assert plain(scores, labels).item() == pytest.approx(
        2.1711197877435944, rel=1e-7
    )


def test_equalization_without_tail_is_cross_entropy():
    loss = build('EqualizationLoss', frequency_threshold=0.0, prior_prob=None)
    scores = scores_of(loss, 20).requires_grad_()
    labels = labels_of(20)
    one_hot = nn.functional.one_hot(labels, C + 1)[:, :C].double()
    plain = (
        nn.functional.binary_cross_entropy_with_logits(
            scores, one_hot, reduction='sum'
        )
        / 20
    )
    value = loss(scores, labels)
    torch.testing.assert_close(value, plain)
    torch.testing.assert_close(
        *(torch.autograd.grad(x, scores)[0] for x in (value, plain))
    )


def test_prior_is_a_shift_of_the_logits():
    """EQL on z with prior p is the paper's on z + logit(p)."""
    loss = build('EqualizationLoss', prior_prob=0.01)
    paper = build('EqualizationLoss', prior_prob=None)
    scores, labels = scores_of(loss, 20), labels_of(20)
    shifted = scores + math.log(0.01 / 0.99)
    torch.testing.assert_close(loss(scores, labels), paper(shifted, labels))
    torch.testing.assert_close(
        loss.get_activation(scores), paper.get_activation(shifted)
    )
    torch.testing.assert_close(
        loss.get_activation(scores),
        torch.tensor(naive.sigmoids(shifted.tolist()), dtype=torch.float64),
    )


def test_first_loss_of_a_large_head_is_small():
    num_classes = 1203
    loss = EqualizationLoss(num_classes)
    loss.set_class_statistics(
        statistics_of(np.arange(1, num_classes + 1), num_images=5000)
    )
    labels = torch.full((512,), num_classes)
    labels[:128] = torch.arange(128)
    value = loss(0.1 * torch.randn(512, num_classes), labels)
    assert value < 10


def test_threshold_comes_from_the_tail_ratio_or_from_the_user():
    statistics = statistics_of(INSTANCE_COUNT)
    derived = build(
        'EqualizationLoss',
        statistics,
        frequency_threshold=None,
        tail_ratio=0.05,
    )
    threshold = statistics.threshold_for_tail_ratio(0.05)
    expected = statistics.image_frequency < threshold
    assert 0 < expected.sum() < C
    assert derived.tail_weight.bool().tolist() == expected.tolist()
    given = build('EqualizationLoss', statistics, frequency_threshold=0.031)
    assert given.tail_weight.tolist() == [1, 0, 1, 0, 0, 1, 0, 0, 1, 1]


def test_dense_loss_leaves_the_head_in_charge():
    """Dense heads bring C columns, their own sigmoid and bias prior."""
    head = MODELS.build(
        ConfigDict(
            type='RetinaHead',
            num_classes=C,
            in_channels=4,
            loss_cls=dict(
                type='DenseEqualizationLoss', num_classes=C, use_sigmoid=True
            ),
        )
    )
    assert head.cls_out_channels == C
    assert head.loss_cls.prior_logit == 0
    with pytest.raises(LongTailError, match='use_sigmoid'):
        DenseEqualizationLoss(C, use_sigmoid=False)


@pytest.mark.parametrize(
    'threshold, words',
    [
        (1e-6, 'makes 1 of 10 .*plain sigmoid'),
        (1.0, 'makes 10 of 10 .*no class suppresses'),
    ],
)
def test_useless_threshold_is_said_once(threshold, words, said):
    statistics = statistics_of(INSTANCE_COUNT)
    for _ in range(2):
        build('EqualizationLoss', statistics, frequency_threshold=threshold)
    messages = said()
    assert len(messages) == 1
    suggested = statistics.threshold_for_tail_ratio(0.09)
    assert f'frequency_threshold={suggested:.3g}' in messages[0]
    assert re.search(words, messages[0])


def test_plain_sigmoid_on_purpose_is_not_a_warning(said):
    build('EqualizationLoss', frequency_threshold=0.0)
    build('EqualizationLoss', frequency_threshold=None, tail_ratio=0.0)
    assert not said()


# -- the parts of the equalization loss -------------------------------------

DECAYS = {
    'ThresholdTailWeight': (dict(), lambda f, t: float(f < t)),
    'ExponentialTailWeight': (
        dict(a=30, n=2),
        lambda f, t: naive.exponential_decay(f, t, 30, 2),
    ),
    'GompertzTailWeight': (
        dict(a=0.9, b=8, c=50),
        lambda f, t: naive.gompertz_decay(f, t, 0.9, 8, 50),
    ),
}


@pytest.mark.parametrize('name', DECAYS)
@pytest.mark.parametrize('threshold', [0.031, 1.0])
def test_tail_weight_equals_the_naive_loop(name, threshold):
    settings, decay = DECAYS[name]
    loss = build(
        'EqualizationLoss',
        frequency_threshold=threshold,
        tail_weight=dict(type=name, **settings),
    )
    frequencies = statistics_of(INSTANCE_COUNT).image_frequency
    expected = [decay(f, threshold) for f in frequencies.tolist()]
    assert loss.tail_weight.tolist() == pytest.approx(expected, rel=1e-6)
    assert (loss.tail_weight >= 0).all() and (loss.tail_weight <= 1).all()
    scores, labels = scores_of(loss, 20), labels_of(20)
    value = loss(scores, labels, reduction_override='none')
    expected_rows = torch.tensor(naive_rows(loss, scores, labels))
    torch.testing.assert_close(value, expected_rows, check_dtype=False)


def test_decays_have_the_values_of_the_paper():
    """Table 3's settings at the ends of LVIS v0.5's tail."""
    f = np.array([0.0, 1.76e-3, 2.5e-3, 0.5])
    exponential = MODELS.build(
        dict(
            type='EqualizationLoss',
            num_classes=4,
            tail_weight=dict(type='ExponentialTailWeight'),
        )
    ).weigh(f, 1.0)
    assert exponential == pytest.approx([1, 1 - 0.704**2, 0, 0])
    gompertz = MODELS.build(
        dict(
            type='EqualizationLoss',
            num_classes=4,
            tail_weight=dict(type='GompertzTailWeight'),
        )
    ).weigh(f, 1.0)
    assert gompertz == pytest.approx([1, 0.335, 0.0433, 0], abs=5e-4)


def test_without_exclude_background_its_negatives_spare_the_tail_too():
    loss = build('EqualizationLoss', exclude_background=False)
    scores, labels = scores_of(loss, 20), labels_of(20)
    expected = naive.equalization(
        scores.tolist(),
        labels.tolist(),
        loss.tail_weight.tolist(),
        loss.prior_logit,
        exclude_background=False,
    )
    value = loss(scores, labels, reduction_override='none')
    torch.testing.assert_close(value, torch.tensor(expected).double())
    is_background = labels == C
    whole = build('EqualizationLoss')(
        scores, labels, reduction_override='none'
    )
    assert (value[is_background] < whole[is_background]).all()
    assert torch.equal(value[~is_background], whole[~is_background])


@pytest.mark.parametrize('exclude_background', [True, False])
@pytest.mark.parametrize('scale', [1.0, 1e4])
def test_verified_classes_are_not_spared(exclude_background, scale):
    loss = build('EqualizationLoss', exclude_background=exclude_background)
    scores, labels = scores_of(loss, 20, scale=scale), labels_of(20)
    generator = torch.Generator().manual_seed(5)
    verified = torch.rand(20, C, generator=generator) < 0.3
    expected = naive.equalization(
        scores.tolist(),
        labels.tolist(),
        loss.tail_weight.tolist(),
        loss.prior_logit,
        exclude_background=exclude_background,
        verified=verified.tolist(),
    )
    with loss.verifying(verified):
        value = loss(scores, labels, reduction_override='none')
    torch.testing.assert_close(value, torch.tensor(expected).double())
    with pytest.raises(ZeroDivisionError), loss.verifying(verified):
        1 / 0  # noqa: B018
    assert loss.verified_classes is None


# -- softmax equalization loss ----------------------------------------------


def test_softmax_equalization_golden_values():
    """Worked by hand from Eq. 9 to 11 for three classes, beta drawn 1."""
    statistics = ClassStatistics(
        ('a', 'b', 'c'), [500, 10, 1], [500, 10, 1], 1000, 510
    )
    scores = torch.tensor([[1, -1, 0.5]], dtype=torch.float64)
    for probability, expected in (
        (1.0, 0.12692801104297247),
        (0.0, 0.5549569196419907),
    ):
        loss = SoftmaxEqualizationClassificationLoss(
            3, frequency_threshold=1.76e-3, ignore_probability=probability
        )
        loss.set_class_statistics(statistics)
        value = loss(scores, torch.tensor([0])).item()
        assert value == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    'setting', [dict(ignore_probability=0.0), dict(frequency_threshold=0.0)]
)
def test_softmax_equalization_without_tail_is_cross_entropy(setting):
    loss = build('SoftmaxEqualizationLoss', **setting)
    scores = scores_of(loss, 20).requires_grad_()
    labels = labels_of(20)
    plain = nn.functional.cross_entropy(scores, labels)
    value = loss(scores, labels)
    torch.testing.assert_close(value, plain)
    torch.testing.assert_close(
        *(torch.autograd.grad(x, scores)[0] for x in (value, plain))
    )
    torch.testing.assert_close(loss.get_activation(scores), scores.softmax(1))


def test_columns_are_ignored_with_the_given_probability():
    T = torch.tensor([1.0, 0, 1, 1, 0])
    labels = torch.arange(4000) % 5
    torch.manual_seed(0)
    ignored = sample_ignored(labels, T, 0.75)
    assert not ignored[torch.arange(4000), labels].any()
    for column in range(5):
        others = ignored[labels != column, column]
        expected = 3200 * 0.75 * T[column]
        # five standard deviations of a binomial
        assert (others.sum() - expected).abs() <= 5 * math.sqrt(600)
    # one draw for each row and class, so tail columns do not agree
    rows = labels == 1
    assert 0.1 < (ignored[rows, 0] != ignored[rows, 2]).double().mean() < 0.9


def test_ignored_columns_get_no_gradient_and_background_rows_ignore_none():
    loss = build('SoftmaxEqualizationLoss')
    scores = scores_of(loss, 2, scale=1e4).requires_grad_()
    loss(scores, torch.tensor([1, C]), reduction_override='sum').backward()
    scores = scores_of(loss, 2).requires_grad_()
    loss(scores, torch.tensor([1, C]), reduction_override='sum').backward()
    is_tail = loss.tail_weight.bool()
    assert (scores.grad[0, :C][is_tail] == 0).all()
    assert (scores.grad[0, :C][~is_tail] != 0).all()
    assert (scores.grad[1] != 0).all()


@pytest.mark.parametrize('scale', [1.0, 1e4])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_classification_has_no_background_column(scale, dtype):
    loss = SoftmaxEqualizationClassificationLoss(
        C, frequency_threshold=0.05, ignore_probability=1.0
    )
    loss.set_class_statistics(statistics_of(INSTANCE_COUNT))
    scores = scale * scores_of(loss, 2 * C, scale=1.0).clamp(-1, 1)
    scores = scores.to(dtype).requires_grad_()
    labels = torch.arange(2 * C) % C
    is_tail = [T == 1 for T in loss.tail_weight.tolist()]
    expected = naive.softmax_equalization(
        scores.tolist(), labels.tolist(), C, [is_tail] * 2 * C
    )
    value = loss(scores, labels, reduction_override='none')
    torch.testing.assert_close(
        value, torch.tensor(expected), rtol=1e-5, atol=1e-3
    )
    value.sum().backward()
    assert scores.grad.isfinite().all()
    assert loss.get_activation(scores).shape == (2 * C, C)


# -- re-weighting and focal loss --------------------------------------------


@pytest.mark.parametrize(
    'config, rule',
    [
        (dict(type='EffectiveNumberClassWeight', beta=0.99), 'effective'),
        (dict(type='EffectiveNumberClassWeight', beta=0.0), 'effective'),
        (dict(type='InverseClassWeight'), 'inverse'),
        (dict(type='InverseSquareRootClassWeight'), 'inverse square root'),
    ],
)
def test_class_weights_equal_the_naive_loop(config, rule):
    loss = build('ReweightedSoftmaxLoss', class_weight=config)
    expected = naive.class_weights(
        INSTANCE_COUNT,
        'effective number' if rule == 'effective' else rule,
        config.get('beta', 0.0),
    )
    assert loss.class_weight.tolist() == pytest.approx(expected, rel=1e-6)
    assert loss.class_weight[:-1].mean() == pytest.approx(1)
    assert loss.class_weight[-1] == 1


def test_focal_loss_without_focus_is_cross_entropy():
    loss = build('RoIFocalLoss', gamma=0.0, alpha=0.5, prior_prob=0.5)
    scores, labels = scores_of(loss, 20), labels_of(20)
    one_hot = nn.functional.one_hot(labels, C + 1)[:, :C].double()
    plain = nn.functional.binary_cross_entropy_with_logits(
        scores, one_hot, reduction='sum'
    )
    torch.testing.assert_close(loss(scores, labels), plain / 2 / 20)


# -- balanced group softmax -------------------------------------------------


def golden_group_softmax(others_ratio):
    """Classes a, b in the first bin and c, d in the second."""
    loss = BalancedGroupSoftmaxLoss(
        4, bin_edges=(10,), others_ratio=others_ratio
    )
    loss.set_class_statistics(
        ClassStatistics(
            ('a', 'b', 'c', 'd'), [1, 1, 20, 20], [1, 1, 20, 20], 100, 40
        )
    )
    # [bg, fg | others, a, b | others, c, d] -> our order of columns
    rows = torch.tensor(
        [
            [0.5, 1.5, 0.2, 1, -0.5, 1.2, 0.3, 2],
            [1, 0, 0.5, 0.5, 0.1, 0, 0.2, 0.3],
            [0, 1, 2, 0, 0, 0.1, 0.1, 1],
            [2, 0, 1, 0, 0, 1, 0, 0],
        ],
        dtype=torch.float64,
    )
    scores = rows[:, [3, 4, 6, 7, 2, 5, 1, 0]]
    return loss, scores, torch.tensor([0, 4, 3, 4])


def test_group_softmax_golden_values():
    loss, scores, labels = golden_group_softmax(8.0)
    values = loss(scores, labels)
    assert list(values) == [
        'loss_cls_below_10',
        'loss_cls_from_10',
        'loss_cls_foreground',
    ]
    assert [value.item() for value in values.values()] == pytest.approx(
        [0.57187072120807, 0.92730932729442, 0.26667826839940], abs=1e-6
    )
    merged = loss.get_activation(scores)[0].tolist()
    assert merged == pytest.approx(
        [0.437116, 0.097534, 0.081833, 0.447949, 0.268941], abs=1e-6
    )
    loss, scores, labels = golden_group_softmax(0.0)
    values = [value.item() for value in loss(scores, labels).values()]
    assert values == pytest.approx(
        [0.51429507282063, 0.59505977354243, 0.26667826839940], abs=1e-6
    )


@given(
    instance_count=st.lists(st.integers(0, 3000), min_size=1, max_size=12),
    bin_edges=st.lists(
        st.integers(1, 3000), min_size=1, max_size=4, unique=True
    ).map(sorted),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_group_softmax_equals_the_naive_loop(instance_count, bin_edges, seed):
    num_classes = len(instance_count)
    loss = BalancedGroupSoftmaxLoss(num_classes, bin_edges, others_ratio=1e9)
    loss.set_class_statistics(
        ClassStatistics(
            tuple(map(str, range(num_classes))),
            instance_count,
            instance_count,
            9000,
            max(instance_count),
        )
    )
    generator = torch.Generator().manual_seed(seed)
    scores = 3 * torch.randn(
        9,
        num_classes + len(bin_edges) + 3,
        generator=generator,
        dtype=torch.float64,
    )
    labels = torch.randint(0, num_classes + 1, (9,), generator=generator)
    label_weights = torch.randint(0, 2, (9,), generator=generator).double()
    values = loss(scores, labels, label_weights)
    expected = naive.balanced_group_softmax_loss(
        scores.tolist(),
        labels.tolist(),
        instance_count,
        bin_edges,
        label_weights.tolist(),
    )
    assert [v.item() for v in values.values()] == pytest.approx(
        expected, rel=1e-6, abs=1e-9
    )
    assert loss.get_activation(scores).tolist() == [
        pytest.approx(row)
        for row in naive.group_probs(
            scores.tolist(), instance_count, bin_edges
        )
    ]


def test_one_bin_is_softmax_with_an_objectness():
    """G = 1 of C classes and others: F.cross_entropy on both groups."""
    loss = build('BalancedGroupSoftmaxLoss', bin_edges=(10000,))
    scores = scores_of(loss, 20).requires_grad_()
    labels = labels_of(20)
    columns = [*range(C), C]
    plain = nn.functional.cross_entropy(
        scores[:, columns], labels
    ) + nn.functional.cross_entropy(scores[:, -2:], (labels == C).long())
    value = total(loss(scores, labels))
    torch.testing.assert_close(value, plain)
    torch.testing.assert_close(
        *(torch.autograd.grad(x, scores)[0] for x in (value, plain))
    )


def test_bin_without_foreground_is_zero_and_keeps_the_graph():
    loss = build('BalancedGroupSoftmaxLoss')
    scores = scores_of(loss, 6).requires_grad_()
    labels = torch.tensor([0, 5, 8, C, C, C])  # the first bin only
    values = loss(scores, labels)
    for name in ('10_to_100', '100_to_1000', 'from_1000'):
        value = values[f'loss_cls_{name}']
        assert value.item() == 0 and value.requires_grad
    total(values).backward()
    own = [0, 2, 5, 8, C]  # the classes below 10 boxes and their others
    touched = scores.grad.abs().sum(0) > 0
    assert touched.nonzero().flatten().tolist() == [*own, C + 4, C + 5]


@given(
    num_own=st.integers(0, 6),
    num_other=st.integers(0, 60),
    others_ratio=st.sampled_from([0.0, 0.5, 1.0, 3.0, 8.0]),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_number_of_drawn_others(num_own, num_other, others_ratio, seed):
    torch.manual_seed(seed)
    is_own = torch.zeros(num_own + num_other, 1, dtype=torch.bool)
    is_own[:num_own] = True
    drawn = sample_others(is_own, ~is_own, others_ratio)
    assert drawn.sum() == min(int(others_ratio * num_own), num_other)
    assert not (drawn & is_own).any()


def test_others_are_drawn_uniformly_and_by_seed():
    in_bin = torch.tensor([True] + [False] * 10).unsqueeze(1)
    torch.manual_seed(0)
    counts = sum(
        sample_others(in_bin, ~in_bin, 3.0).long() for _ in range(4000)
    )
    # 3 of 10 each time; five standard deviations of a binomial
    assert (counts[1:] - 1200).abs().max() < 5 * math.sqrt(4000 * 0.3 * 0.7)
    torch.manual_seed(7)
    first = sample_others(in_bin, ~in_bin, 3.0)
    torch.manual_seed(7)
    assert torch.equal(first, sample_others(in_bin, ~in_bin, 3.0))


def test_rows_of_weight_zero_are_neither_positive_nor_drawn():
    loss = build('BalancedGroupSoftmaxLoss', others_ratio=2.0)
    labels = torch.tensor([0, 0, 1, C, C, C, C, C])
    label_weights = torch.tensor([1.0, 0, 0, 1, 1, 1, 0, 0])
    for _ in range(20):
        weights = loss.row_weights(labels, label_weights)
        assert (weights[label_weights == 0] == 0).all()
        assert weights[:, 0].sum() == 3  # one positive, two drawn
        assert weights[:, 3].sum() == 0  # its only positive has weight 0


def test_class_on_an_edge_is_in_the_upper_bin():
    loss = BalancedGroupSoftmaxLoss(4, bin_edges=(10, 100))
    loss.set_class_statistics(statistics_of([9, 10, 99, 100]))
    assert loss.bin_index.tolist() == [0, 1, 1, 2]


def test_other_bin_edges_than_the_checkpoint_are_an_error():
    state = build('BalancedGroupSoftmaxLoss').state_dict()
    other = BalancedGroupSoftmaxLoss(C, bin_edges=(10, 100, 300))
    with pytest.raises(LongTailError, match='puts 1 of 10 classes'):
        other.load_state_dict(state)


def test_everything_in_one_bin_is_said_once(said):
    for _ in range(2):
        build('BalancedGroupSoftmaxLoss', bin_edges=(5000,))
    messages = said()
    assert len(messages) == 1
    assert 'in one bin' in messages[0] and 'suggests bin_edges=' in messages[0]


def test_accuracy_of_objectness():
    loss = build('BalancedGroupSoftmaxLoss')
    scores = torch.zeros(4, loss.get_cls_channels(C))
    scores[:, -2] = torch.tensor([1.0, -1, 1, -1])
    labels = torch.tensor([0, 0, C, C])
    assert loss.get_accuracy(scores, labels)['acc_objectness'] == 50


@pytest.mark.parametrize(
    'name, setting',
    [
        ('EqualizationLoss', dict(frequency_threshold=1.5)),
        ('EqualizationLoss', dict(frequency_threshold=-0.1)),
        ('EqualizationLoss', dict(tail_ratio=9)),
        ('EqualizationLoss', dict(prior_prob=0.0)),
        ('SoftmaxEqualizationLoss', dict(ignore_probability=1.1)),
        ('SoftmaxEqualizationLoss', dict(ignore_probability=-0.1)),
        ('SoftmaxEqualizationLoss', dict(tail_ratio=9)),
        ('RoIFocalLoss', dict(gamma=0.5)),
        ('RoIFocalLoss', dict(alpha=2)),
        ('RoIFocalLoss', dict(prior_prob=1)),
        ('BalancedGroupSoftmaxLoss', dict(bin_edges=())),
        ('BalancedGroupSoftmaxLoss', dict(bin_edges=(100, 10))),
        ('BalancedGroupSoftmaxLoss', dict(bin_edges=(0, 10))),
        ('BalancedGroupSoftmaxLoss', dict(bin_edges=(10, float('nan')))),
        ('BalancedGroupSoftmaxLoss', dict(others_ratio=-1)),
    ],
)
def test_settings_out_of_range_are_one_line(name, setting):
    (key,) = setting
    with pytest.raises(LongTailError, match=key) as error:
        MODELS.get(name)(C, **setting)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    'config, words',
    [
        (dict(type='ExponentialTailWeight', a=0), 'a is 0'),
        (dict(type='ExponentialTailWeight', n=-1), 'n is -1'),
        (dict(type='GompertzTailWeight', a=2), 'a is 2'),
        (dict(type='GompertzTailWeight', c=math.inf), 'c is inf'),
        (dict(type='LinearTailWeight'), "'LinearTailWeight'.*Gompertz"),
        (dict(a=400), "'type'"),
    ],
)
def test_tail_weight_out_of_range_is_one_line(config, words):
    with pytest.raises(LongTailError, match=words) as error:
        EqualizationLoss(C, tail_weight=config)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    'config, words',
    [
        (dict(type='EffectiveNumberClassWeight', beta=1), 'beta is 1'),
        (dict(type='ThresholdTailWeight'), 'InverseClassWeight'),
    ],
)
def test_class_weight_out_of_range_is_one_line(config, words):
    with pytest.raises(LongTailError, match=words) as error:
        ReweightedSoftmaxLoss(C, class_weight=config)
    assert '\n' not in str(error.value)

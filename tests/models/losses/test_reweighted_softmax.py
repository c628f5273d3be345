"""Softmax cross-entropy with class weights."""

from __future__ import annotations

import naive
import pytest
from loss_cases import build
from loss_contract import INSTANCE_COUNT, C, lvis_counts, statistics_of

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.losses import (
    ReweightedBalancedGroupSoftmaxLoss,
    ReweightedSoftmaxLoss,
)

INVERSE = dict(type='InverseClassWeight')


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
    assert loss.class_weight.tolist() == pytest.approx(expected[:-1], rel=1e-6)
    assert loss.class_weight.mean() == pytest.approx(1)


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


def test_weight_range_clips_after_the_mean_is_one():
    """Re-weight in Table 1 of the paper."""
    loss = ReweightedSoftmaxLoss(4, INVERSE, weight_range=(0.1, 5.0))
    counts = [1, 1000, 2000, 0]
    loss.set_class_statistics(statistics_of(counts))
    w = [1, 1 / 1000, 1 / 2000, 1]
    mean = sum(w) / 4
    assert loss.class_weight.tolist() == pytest.approx(
        [1 / mean, 0.1, 0.1, 1 / mean]
    )
    free = ReweightedSoftmaxLoss(4, INVERSE)
    free.set_class_statistics(statistics_of(counts))
    assert free.class_weight.tolist() == pytest.approx([x / mean for x in w])


def test_weight_range_has_the_published_number_of_classes_at_its_ends():
    counts = lvis_counts('v0.5')
    effective = dict(type='EffectiveNumberClassWeight', beta=0.999)
    for rule, num_smallest in ((INVERSE, 501), (effective, 494)):
        loss = ReweightedSoftmaxLoss(
            len(counts), rule, weight_range=(0.1, 5.0)
        )
        loss.set_class_statistics(statistics_of(counts))
        w = loss.class_weight
        assert (w == 5).sum() == 57
        assert (w == w.min()).sum() == num_smallest
        assert w.min() == pytest.approx(0.1)


@pytest.mark.parametrize(
    'kind', [ReweightedSoftmaxLoss, ReweightedBalancedGroupSoftmaxLoss]
)
@pytest.mark.parametrize(
    'weight_range',
    [(5, 0.1), (1, 1), (-1, 5), (0.1,), 5, 'ab', (0.1, float('nan'))],
)
def test_bad_weight_range_is_one_line(kind, weight_range):
    with pytest.raises(LongTailError, match='weight_range is') as error:
        kind(4, INVERSE, weight_range=weight_range)
    assert kind.__name__ in str(error.value)
    assert '\n' not in str(error.value)

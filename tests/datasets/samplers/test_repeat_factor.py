"""Images are repeated as the papers of RFS and IRFS say."""

import itertools
import math

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labeled_images import Labels, some_labels

from mmdet_longtail.datasets.samplers import (
    InstanceAwareRepeatFactorSampler,
    RepeatFactorSampler,
)
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.structures.repeat_factor import repeat_factors

THRESHOLD = 0.3


def epochs(sampler, numbers):
    indices = []
    for epoch in numbers:
        sampler.set_epoch(epoch)
        indices += sampler
    return indices


images_of_classes = st.lists(
    st.lists(st.integers(0, 5), max_size=4), min_size=1, max_size=15
).filter(any)


@settings(max_examples=60)
@given(images_of_classes, st.floats(1e-3, 1))
def test_repeat_factors_equal_plain_loops(labels, threshold):
    dataset = Labels(labels)
    for sampler, expected in (
        (
            RepeatFactorSampler(dataset, threshold, seed=0),
            naive.repeat_factors(labels, threshold),
        ),
        (
            InstanceAwareRepeatFactorSampler(dataset, threshold, seed=0),
            naive.instance_aware_repeat_factors(labels, threshold),
        ),
    ):
        assert sampler.repeat_factor == pytest.approx(expected)
        assert len(sampler) == pytest.approx(sum(expected), abs=0.5 + 1e-9)


def test_the_class_with_fewer_boxes_is_shown_more():
    """Classes 1 and 2 are in one image each; 1 has nine boxes there."""
    labels = [[0]] * 8 + [[1] * 9, [2]]
    sampler = InstanceAwareRepeatFactorSampler(Labels(labels), 0.3, seed=0)
    f = [math.sqrt(1 / 10 * boxes / 18) for boxes in (9, 1)]
    assert sampler.repeat_factor[8:] == pytest.approx(
        [math.sqrt(0.3 / value) for value in f]
    )
    plain = RepeatFactorSampler(Labels(labels), 0.3, seed=0)
    assert plain.repeat_factor[8] == plain.repeat_factor[9]


def test_repeat_factors_of_classes():
    """t / f(c) = 0.3 / (10, 5, 1 of 10 images)."""
    image_index = np.array([*range(10), 0, 1, 2, 3, 4, 4])
    class_index = np.array([0] * 10 + [1] * 5 + [2])
    f = np.bincount(class_index) / 10
    r_class, r_image = repeat_factors(image_index, class_index, f, 10, 0.3)
    assert r_class == pytest.approx([1, 1, math.sqrt(3)])
    assert r_image == pytest.approx([1] * 4 + [math.sqrt(3)] + [1] * 5)


def test_passes_round_repeat_factors_at_random():
    sampler = RepeatFactorSampler(Labels(some_labels()), THRESHOLD, seed=0)
    r = np.array(naive.repeat_factors(some_labels(), THRESHOLD))
    num_passes = 2000
    counts = np.zeros(len(r))
    for number in range(num_passes):
        count = np.bincount(sampler._draw_pass(number), minlength=len(r))
        assert ((np.floor(r) <= count) & (count <= np.ceil(r))).all()
        assert count.min() >= 1
        counts += count
    fraction = r - np.floor(r)
    sigma = np.sqrt(num_passes * fraction * (1 - fraction))
    assert (abs(counts - num_passes * r) <= 5 * sigma + 1e-6).all()
    assert r.max() > 4 and (sigma > 0).sum() > 5


def test_epochs_are_cut_from_the_stream_of_passes():
    sampler = RepeatFactorSampler(Labels(some_labels()), THRESHOLD, seed=3)
    stream = np.concatenate([sampler._draw_pass(n) for n in range(60)])
    assert len({len(sampler._draw_pass(n)) for n in range(60)}) > 1
    drawn = epochs(sampler, range(50))
    assert drawn == stream[: len(drawn)].tolist()
    # Any epoch by itself, in any order.
    for epoch in (49, 0, 17):
        start = epoch * len(sampler)
        assert epochs(sampler, [epoch]) == drawn[start : start + len(sampler)]


def test_orders_of_passes_and_seeds_differ():
    dataset = Labels([[0]] * 30)
    one, other = (RepeatFactorSampler(dataset, 0.5, seed=s) for s in (0, 1))
    orders = [tuple(s._draw_pass(n)) for s in (one, other) for n in range(5)]
    assert len(set(orders)) == 10
    assert sorted(orders[0]) == list(range(30))


def test_ranks_take_turns_in_the_stream(monkeypatch):
    dataset = Labels(some_labels())
    whole = RepeatFactorSampler(dataset, THRESHOLD, seed=0)
    drawn = []
    for rank in range(7):
        monkeypatch.setattr(
            'mmdet_longtail.datasets.samplers.get_dist_info',
            lambda rank=rank: (rank, 7),
        )
        sampler = RepeatFactorSampler(dataset, THRESHOLD, seed=0)
        drawn.append(epochs(sampler, range(4)))
    together = list(itertools.chain.from_iterable(zip(*drawn)))
    assert together == epochs(whole, range(5))[: len(together)]


@pytest.mark.parametrize(
    'kind', [RepeatFactorSampler, InstanceAwareRepeatFactorSampler]
)
@pytest.mark.parametrize('threshold', [0, -0.1, 1.1, math.nan, '0.001', None])
def test_threshold_out_of_range(threshold, kind):
    message = f'^{kind.__name__}: oversample_thr is'
    with pytest.raises(LongTailError, match=message) as caught:
        kind(Labels(some_labels()), threshold)
    assert '\n' not in str(caught.value)

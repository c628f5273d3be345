"""Suggested settings on sets of several kinds, and against plain loops."""

import json
import math

import numpy as np
import pytest
from count_sets import (
    SETS,
    SHARED_DATA,
    counted,
    even,
    glyphs,
    needs_shared_data,
    statistics_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_longtail.structures.annotations import parse_annotations
from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.structures.imbalance import Balance, imbalance
from mmdet_longtail.structures.suggestions import (
    DECADES,
    MAX_EPOCH_GROWTH,
    MAX_REPEAT_FACTOR,
    checked_share,
    epoch_growth,
    shortest_threshold,
    suggest_bin_edges,
    suggest_frequency_threshold,
    suggest_oversample_thr,
    suggest_settings,
)


def coco(num_images, boxes, num_classes):
    """COCO content of boxes (image, label)."""
    return {
        'images': [
            {'id': i, 'file_name': f'{i}.jpg', 'width': 64, 'height': 64}
            for i in range(num_images)
        ],
        'categories': [
            {'id': c, 'name': f'class {c}'} for c in range(num_classes)
        ],
        'annotations': [
            {
                'id': i,
                'image_id': image,
                'category_id': label,
                'bbox': [1, 2, 10, 20],
                'area': 200,
            }
            for i, (image, label) in enumerate(boxes)
        ],
    }


def counts_and_boxes(content):
    annotations = parse_annotations(content, '')
    return ClassStatistics.from_annotations(annotations), annotations


# all settings


@pytest.mark.parametrize('name', SETS)
def test_even_counts_get_no_suggestion(name):
    arguments, balance = SETS[name]
    statistics = statistics_of(*arguments)
    suggested = suggest_settings(statistics)
    values = [suggestion.value for suggestion in suggested.values()]
    if balance is Balance.BALANCED:
        assert values == [None, None, None]
    else:
        assert any(value is not None for value in values)
    assert all(suggestion.reason for suggestion in suggested.values())


@given(st.integers(1, 300), st.integers(0, 10**5))
def test_equal_counts_get_no_suggestion(num_classes, count):
    suggested = suggest_settings(statistics_of(*even(num_classes, count)))
    assert all(suggestion.value is None for suggestion in suggested.values())


# 4 to 2,500 images, as on real sets.
uneven = st.lists(st.integers(1, 40), min_size=1, max_size=40).map(
    lambda counts: [*counts, 40 * max(counts)]
)


@given(uneven)
def test_every_suggestion_does_something(counts):
    statistics = statistics_of(counts)
    values = {k: v.value for k, v in suggest_settings(statistics).items()}
    threshold = values['frequency_threshold']
    if threshold is not None:
        is_tail = statistics.is_tail(threshold)
        assert is_tail.any() and not is_tail.all()
        assert 0 < statistics.tail_ratio(threshold) <= 0.02
    assert len(np.unique(statistics.bin_index(values['bin_edges']))) > 1
    t = values['oversample_thr']
    assert 0 < t <= 1
    assert (statistics.image_frequency < t).any()


# lambda


@needs_shared_data
@pytest.mark.parametrize(
    ('name', 'share', 'num_tail'),
    [('lvis_v0.5', 0.01, 915), ('lvis_v1', 0.01, 893), ('v3det', 1, 1570)],
)
def test_threshold_of_large_vocabularies(name, share, num_tail):
    statistics = counted(name)
    threshold = suggest_frequency_threshold(statistics, share).value
    assert statistics.is_tail(threshold).sum() == num_tail
    limit = 0.091 if share < 0.1 else 0.02
    best = statistics.threshold_for_tail_ratio(limit)
    assert statistics.tail_ratio(threshold) == statistics.tail_ratio(best)


def test_threshold_of_glyphs_is_the_best_that_was_measured():
    """docs/glyphs.md: 58 tail classes, against 82 at 9 %."""
    statistics = glyphs()
    threshold, reason = suggest_frequency_threshold(statistics, 0.375)
    assert statistics.is_tail(threshold).sum() == 58
    assert 'docs/glyphs.md' in reason and '58 of 120' in reason


@given(st.lists(st.integers(0, 30), min_size=1, max_size=12))
def test_threshold_is_the_longest_tail_within_the_limit(counts):
    statistics = statistics_of(counts, num_images=400)
    threshold = suggest_frequency_threshold(statistics).value
    longest = statistics.threshold_for_tail_ratio(0.02)
    if threshold is None:
        assert statistics.tail_ratio(longest) == 0
    else:
        tail = statistics.is_tail(threshold)
        assert (tail == statistics.is_tail(longest)).all()


def test_threshold_is_rounded_without_moving_a_class():
    count = np.array([1, 44, 45, 46, 700])
    statistics = statistics_of(count, num_images=729)
    for threshold in statistics.image_frequency:
        rounded = shortest_threshold(statistics, threshold)
        assert statistics.tail_ratio(rounded) == statistics.tail_ratio(
            threshold
        )
        assert len(str(rounded)) <= len(str(threshold))


@pytest.mark.parametrize(
    ('absent', 'share'),
    [(None, 1.0), ([], 0.25), ([2], 0.5), ([1, 2, 3], 1.0)],
)
def test_share_of_classes_that_an_image_is_checked_for(absent, share):
    content = coco(3, [(0, 0), (1, 0), (1, 0), (2, 0)], 4)
    if absent is not None:
        for image in content['images']:
            image['neg_category_ids'] = absent
    annotations = parse_annotations(content, '')
    assert checked_share(content, annotations) == share


# bins


def test_suggested_decades():
    statistics = statistics_of([1, 50, 500], num_images=1000)
    edges, sentence = suggest_bin_edges(statistics)
    assert edges == (10, 100, 1000)
    assert sentence.endswith(
        'at least 3 bins hold a class: 1, 1, 1, 0 classes'
    )


@pytest.mark.parametrize(
    ('counts', 'edges', 'sizes'),
    [
        (list(range(20, 60)), (30, 40, 50), [10] * 4),
        ([1] * 30 + [30] * 10, (2,), [30, 10]),  # two quartiles are one
        ([20] * 9 + [30] * 3, DECADES, [0, 12, 0, 0]),  # three are too few
        ([20, 30, 40, 50, 60], (31,), [2, 3]),  # under eight classes
        ([20, 50], (26,), [1, 1]),
        ([50], DECADES, [0, 1, 0, 0]),
        ([70] * 20, DECADES, [0, 20, 0, 0]),
        ([0] * 20, DECADES, [20, 0, 0, 0]),
    ],
)
def test_suggested_quartiles(counts, edges, sizes):
    statistics = statistics_of(counts, num_images=100)
    found, sentence = suggest_bin_edges(statistics)
    bins = np.bincount(
        statistics.bin_index(found), minlength=len(found) + 1
    ).tolist()
    assert (found, bins) == (edges, sizes)
    rule = 'too alike' if edges == DECADES else 'quartiles'
    assert rule in sentence


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=60))
def test_suggested_bins_are_usable(counts):
    statistics = statistics_of(counts, num_images=3000)
    edges, _ = suggest_bin_edges(statistics)
    sizes = np.bincount(statistics.bin_index(edges), minlength=len(edges) + 1)
    if edges != DECADES:
        assert 1 <= len(edges) <= 3
        assert min(sizes) >= min(4, len(counts) // 2)


# repeat-factor sampling


def naive_epoch(content, statistics, oversample_thr):
    """Expected images of an epoch: the sum of r(I)."""
    frequency = statistics.image_frequency
    epoch = 0.0
    for image in content['images']:
        repeat = 1.0
        for box in content['annotations']:
            if box['image_id'] == image['id']:
                f = frequency[box['category_id']]
                repeat = max(repeat, math.sqrt(oversample_thr / f))
        epoch += repeat
    return epoch


contents = st.integers(1, 6).flatmap(
    lambda num_images: st.lists(
        st.tuples(st.integers(0, num_images - 1), st.integers(0, 4)),
        min_size=1,
        max_size=30,
    ).map(lambda boxes: coco(num_images, boxes, 5))
)


@settings(max_examples=30)
@given(contents, st.floats(1e-3, 1))
def test_epoch_equals_plain_loops(content, oversample_thr):
    statistics, annotations = counts_and_boxes(content)
    growth = epoch_growth(
        statistics, oversample_thr, annotations.image_classes()
    )
    epoch = naive_epoch(content, statistics, oversample_thr)
    assert growth * len(content['images']) == pytest.approx(epoch)


@needs_shared_data
@pytest.mark.parametrize(
    ('name', 'expected'),
    [('lvis_v0.5', 1e-3), ('lvis_v1', 1e-3), ('v3det', 1.2e-4)],
)
def test_oversample_thr_of_large_vocabularies(name, expected):
    assert suggest_oversample_thr(counted(name)).value == expected


def test_oversample_thr_of_glyphs():
    """The config has 0.02, with which an epoch grows to 1.25 times."""
    assert suggest_oversample_thr(glyphs()).value == pytest.approx(0.013)


@needs_shared_data
@pytest.mark.parametrize(
    'path',
    [
        'ccp_lt/annotations/train.json',
        'arithmetic_lt/annotations/arith_train.json',
    ],
)
def test_oversample_thr_of_small_sets(path):
    """1e-3 repeats nothing there; counts alone give nearly the same value."""
    content = json.loads((SHARED_DATA / path).read_text())
    statistics, annotations = counts_and_boxes(content)
    pairs = annotations.image_classes()
    assert epoch_growth(statistics, 1e-3, pairs) == 1
    t = suggest_oversample_thr(statistics, annotations).value
    assert epoch_growth(statistics, t, pairs) == pytest.approx(1.15, abs=0.01)
    estimate = suggest_oversample_thr(statistics).value
    assert estimate == pytest.approx(t, rel=0.05)


@given(uneven, st.integers(1, 5))
def test_oversample_thr_has_two_limits(counts, images_per_box):
    statistics = statistics_of(counts, num_images=images_per_box * sum(counts))
    assert imbalance(statistics.image_count) >= 40
    t = suggest_oversample_thr(statistics).value
    f = statistics.image_frequency
    # Two digits of t change r(c) by 2.5 % at most.
    assert math.sqrt(t / f[f > 0].min()) <= MAX_REPEAT_FACTOR * 1.03
    assert epoch_growth(statistics, t) <= MAX_EPOCH_GROWTH * 1.03


def test_rare_images_are_repeated_ten_times_at_most():
    boxes = [(i, 0) for i in range(5000)] + [(0, 1), (1, 1)]
    statistics, annotations = counts_and_boxes(coco(5000, boxes, 2))
    t, reason = suggest_oversample_thr(statistics, annotations)
    assert t == 0.04
    assert 'grows to 1.00 times' in reason and '10.0 times' in reason

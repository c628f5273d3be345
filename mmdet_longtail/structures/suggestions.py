"""Settings that suit the data at hand, each by one rule.

The functions named ``explain_`` put a setting and the rule into a sentence,
for a table or for a comment in a config.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmdet_longtail.structures.annotations import Annotations
from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.structures.repeat_factor import repeat_factors

MAX_TAIL_RATIO = 0.09
DECADES = (10, 100, 1000)
MIN_FILLED_DECADES = 3
MIN_CLASSES_PER_BIN = 4
OVERSAMPLE_THR = 1e-3
MAX_EPOCH_GROWTH = 1.5


def suggest_frequency_threshold(statistics: ClassStatistics) -> float:
    """Suggest EQL's lambda: the largest with a tail ratio of at most 9 %.

    The best lambda of the paper has this tail ratio on LVIS v0.5 (Tan et
    al., Equalization Loss for Long-Tailed Object Recognition, CVPR 2020).

    Args:
        statistics (ClassStatistics): Counts of the training set.

    Returns:
        float: frequency_threshold, in [0, 1].
    """
    return statistics.threshold_for_tail_ratio(MAX_TAIL_RATIO)


def explain_frequency_threshold(
    statistics: ClassStatistics, frequency_threshold: float
) -> str:
    """Say what a suggested frequency_threshold does.

    Args:
        statistics (ClassStatistics): Counts of the training set.
        frequency_threshold (float): What was suggested for them.
    """
    tail = int(statistics.is_tail(frequency_threshold).sum())
    return (
        'the largest with a tail ratio of at most '
        f'{100 * MAX_TAIL_RATIO:g} %: {tail} of {statistics.num_classes} '
        'classes are tail, tail ratio '
        f'{100 * statistics.tail_ratio(frequency_threshold):.2f} %'
    )


def suggest_bin_edges(statistics: ClassStatistics) -> tuple[int, ...]:
    """Suggest the bins of a group softmax, by instance_count.

    The decades (10, 100, 1000) of the paper (Li et al., Overcoming
    Classifier Imbalance for Long-tail Object Detection with Balanced Group
    Softmax, CVPR 2020) if at least three of their four bins hold a class.

    Else quartiles of log(instance_count). An edge that would leave fewer
    than four classes in a bin is dropped (a vocabulary under eight classes:
    fewer than half of them). Where no edge is left because the classes are
    all alike, the decades stay.

    Args:
        statistics (ClassStatistics): Counts of the training set.

    Returns:
        tuple[int, ...]: bin_edges, at least one.
    """
    filled = len(np.unique(statistics.bin_index(DECADES)))
    if filled >= MIN_FILLED_DECADES:
        return DECADES
    counts = statistics.instance_count
    quartiles = np.exp(
        np.quantile(np.log(np.maximum(counts, 1)), (0.25, 0.5, 0.75))
    )
    smallest_bin = max(
        min(MIN_CLASSES_PER_BIN, statistics.num_classes // 2), 1
    )
    edges: list[int] = []
    for edge in np.floor(quartiles).astype(int) + 1:
        lower = (counts < edge) & (counts >= max(edges, default=0))
        upper = counts >= edge
        if min(lower.sum(), upper.sum()) >= smallest_bin:
            edges.append(int(edge))
    return tuple(edges) or DECADES


def explain_bin_edges(
    statistics: ClassStatistics, bin_edges: Sequence[float]
) -> str:
    """Say what suggested bin_edges do.

    Args:
        statistics (ClassStatistics): Counts of the training set.
        bin_edges (Sequence[float]): What was suggested for them.
    """
    classes = np.bincount(
        statistics.bin_index(bin_edges), minlength=len(bin_edges) + 1
    )
    sizes = ', '.join(map(str, classes))
    if tuple(bin_edges) != DECADES:
        rule = (
            'quartiles of log instance_count, because the decades fill fewer '
            f'than {MIN_FILLED_DECADES} bins'
        )
    elif np.count_nonzero(classes) >= MIN_FILLED_DECADES:
        rule = (
            f'decades, because at least {MIN_FILLED_DECADES} bins hold a class'
        )
    else:
        rule = 'decades, because the classes are too alike to split'
    return f'{rule}: {sizes} classes'


def suggest_oversample_thr(annotations: Annotations) -> float:
    """Suggest the threshold t of repeat-factor sampling.

    1e-3, the value of LVIS, unless the epoch would grow beyond 1.5 times the
    images; then the t that gives 1.5 times.

    Args:
        annotations (Annotations): The training set.

    Returns:
        float: oversample_thr of RepeatFactorSampler, in (0, 1e-3].
    """
    if epoch_growth(annotations, OVERSAMPLE_THR) <= MAX_EPOCH_GROWTH:
        return OVERSAMPLE_THR
    low, high = 0.0, OVERSAMPLE_THR
    for _ in range(40):
        middle = (low + high) / 2
        if epoch_growth(annotations, middle) <= MAX_EPOCH_GROWTH:
            low = middle
        else:
            high = middle
    return float(f'{low:.3g}')


def explain_oversample_thr(
    annotations: Annotations, oversample_thr: float
) -> str:
    """Say what a suggested oversample_thr does.

    Args:
        annotations (Annotations): The training set.
        oversample_thr (float): What was suggested for it.
    """
    growth = epoch_growth(annotations, oversample_thr)
    if growth == 1:
        return (
            f'with {oversample_thr:g}, the value of LVIS, no image is '
            'repeated, because no class is rarer than that'
        )
    if oversample_thr == OVERSAMPLE_THR:
        return f'the value of LVIS: the epoch grows to {growth:.2f} times'
    usual = epoch_growth(annotations, OVERSAMPLE_THR)
    return (
        f'the epoch grows to {growth:.2f} times; with {OVERSAMPLE_THR:g}, '
        f'the value of LVIS, it would be {usual:.2f} times'
    )


def epoch_growth(annotations: Annotations, oversample_thr: float) -> float:
    """Compute the mean repeat factor of the images, r(I).

    f(c) is `ClassStatistics.image_frequency`, over all images of the file.
    `RepeatFactorSampler` counts the images that the filters of the dataset
    leave.

    Args:
        annotations (Annotations): The training set.
        oversample_thr (float): Threshold t of repeat factor sampling.

    Returns:
        float: Length of an epoch divided by num_images.
    """
    image_index, class_index = annotations.image_classes()
    num_images = annotations.num_images
    image_frequency = np.bincount(class_index) / num_images
    _, r_image = repeat_factors(
        image_index, class_index, image_frequency, num_images, oversample_thr
    )
    return float(r_image.mean())

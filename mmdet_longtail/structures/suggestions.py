"""Settings that suit the counts of a training set, each by one rule."""

from typing import Any, NamedTuple

import numpy as np

from mmdet_longtail.structures.annotations import Annotations
from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.structures.repeat_factor import repeat_factors

MAX_TAIL_RATIO = 0.09
DECADES = (10, 100, 1000)
MIN_CLASSES_PER_BIN = 4
OVERSAMPLE_THR = 1e-3
MAX_EPOCH_GROWTH = 1.5


class Suggestion(NamedTuple):
    """The value of a setting, and its rule and effect in a sentence."""

    value: Any
    reason: str


def suggest_settings(
    statistics: ClassStatistics, annotations: Annotations | None = None
) -> dict[str, Suggestion]:
    """Suggest every setting that depends on the counts.

    Returns:
        dict[str, Suggestion]: By the key of a config: frequency_threshold,
        bin_edges and, with annotations, oversample_thr.
    """
    settings = dict(
        frequency_threshold=suggest_frequency_threshold(statistics),
        bin_edges=suggest_bin_edges(statistics),
    )
    if annotations is not None:
        settings['oversample_thr'] = suggest_oversample_thr(annotations)
    return settings


def suggest_frequency_threshold(statistics: ClassStatistics) -> Suggestion:
    """Suggest EQL's lambda: the largest with a tail ratio of at most 9 %.

    The best lambda of the paper has this tail ratio on LVIS v0.5 (Tan et
    al., Equalization Loss for Long-Tailed Object Recognition, CVPR 2020).
    """
    threshold = statistics.threshold_for_tail_ratio(MAX_TAIL_RATIO)
    return Suggestion(
        threshold,
        f'the largest with a tail ratio of at most {100 * MAX_TAIL_RATIO:g} '
        f'%: {statistics.is_tail(threshold).sum()} of '
        f'{statistics.num_classes} classes are tail, tail ratio '
        f'{100 * statistics.tail_ratio(threshold):.2f} %',
    )


def suggest_bin_edges(statistics: ClassStatistics) -> Suggestion:
    """Suggest the bins of a group softmax, by instance_count.

    The decades (10, 100, 1000) of the paper (Li et al., Overcoming
    Classifier Imbalance for Long-tail Object Detection with Balanced Group
    Softmax, CVPR 2020) if at least three of their four bins hold a class.

    Else quartiles of log(instance_count). An edge that would leave fewer
    than four classes in a bin is dropped (a vocabulary under eight classes:
    fewer than half of them). Where no edge is left because the classes are
    all alike, the decades stay.
    """
    bin_edges: tuple[int, ...] = DECADES
    if len(np.unique(statistics.bin_index(DECADES))) >= 3:
        rule = 'decades, because at least 3 bins hold a class'
    elif quartiles := _quartile_edges(statistics.instance_count):
        bin_edges = quartiles
        rule = (
            'quartiles of log instance_count, because the decades fill fewer '
            'than 3 bins'
        )
    else:
        rule = 'decades, because the classes are too alike to split'
    groups = statistics.bin_groups(bin_edges)
    sizes = ', '.join(str(group.members.sum()) for group in groups)
    return Suggestion(bin_edges, f'{rule}: {sizes} classes')


def _quartile_edges(counts: np.ndarray) -> tuple[int, ...]:
    """Return the quartiles of log counts that leave enough classes per bin."""
    logs = np.log(np.maximum(counts, 1))
    quartiles = np.exp(np.quantile(logs, (0.25, 0.5, 0.75)))
    smallest_bin = max(min(MIN_CLASSES_PER_BIN, len(counts) // 2), 1)
    edges: list[int] = []
    for edge in np.floor(quartiles).astype(int) + 1:
        lower = (counts < edge) & (counts >= max(edges, default=0))
        upper = counts >= edge
        if min(lower.sum(), upper.sum()) >= smallest_bin:
            edges.append(int(edge))
    return tuple(edges)


def suggest_oversample_thr(annotations: Annotations) -> Suggestion:
    """Suggest the threshold t of repeat-factor sampling, in (0, 1e-3].

    1e-3, the value of LVIS, unless the epoch would grow beyond 1.5 times the
    images; then the t that gives 1.5 times.
    """
    growth = epoch_growth(annotations, OVERSAMPLE_THR)
    if growth <= MAX_EPOCH_GROWTH:
        return Suggestion(
            OVERSAMPLE_THR,
            f'with {OVERSAMPLE_THR:g}, the value of LVIS, no image is '
            'repeated, because no class is rarer than that'
            if growth == 1
            else f'the value of LVIS: the epoch grows to {growth:.2f} times',
        )
    low, step = 0.0, OVERSAMPLE_THR
    for _ in range(40):
        step /= 2
        if epoch_growth(annotations, low + step) <= MAX_EPOCH_GROWTH:
            low += step
    thr = float(f'{low:.3g}')
    return Suggestion(
        thr,
        f'the epoch grows to {epoch_growth(annotations, thr):.2f} times; '
        f'with {OVERSAMPLE_THR:g}, the value of LVIS, it would be '
        f'{growth:.2f} times',
    )


def epoch_growth(annotations: Annotations, oversample_thr: float) -> float:
    """Compute the mean repeat factor of the images, r(I).

    It is the length of an epoch divided by num_images. f(c) is
    `ClassStatistics.image_frequency`, over all images of the file.
    `RepeatFactorSampler` counts the images that the dataset's filters leave.
    """
    image_index, class_index = annotations.image_classes()
    num_images = annotations.num_images
    image_frequency = np.bincount(class_index) / num_images
    _, r_image = repeat_factors(
        image_index, class_index, image_frequency, num_images, oversample_thr
    )
    return float(r_image.mean())

"""Settings that suit the counts of a training set, each by one rule."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import brentq

from mmdet_longtail.structures.annotations import Annotations
from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.structures.imbalance import (
    MIN_IMBALANCE,
    imbalance,
    ratio_text,
)
from mmdet_longtail.structures.repeat_factor import repeat_factors

MAX_TAIL_RATIO = 0.02
# Of a set whose images are checked for few of the classes, as LVIS.
MAX_FEDERATED_TAIL_RATIO = 0.091
MAX_FEDERATED_SHARE = 0.1
DECADES = (10, 100, 1000)
MIN_CLASSES_PER_BIN = 4
# LVIS's t of 1e-3 gives both: 1.15 times for v0.5 and 1.14 times for v1,
# and a repeat factor of 10 for a class in one of v1's 100,170 images.
MAX_EPOCH_GROWTH = 1.15
MAX_REPEAT_FACTOR = 10


class Suggestion(NamedTuple):
    """The value of a setting, and its rule and effect in a sentence.

    The value is None where the data gives no reason to set it.
    """

    value: Any
    reason: str


def suggest_settings(
    statistics: ClassStatistics,
    annotations: Annotations | None = None,
    checked_share: float = 1.0,
) -> dict[str, Suggestion]:
    """Suggest every setting that depends on the counts.

    Args:
        statistics (ClassStatistics): The counts.
        annotations (Annotations, optional): Their boxes. Without them the
            length of an epoch is estimated from the counts.
        checked_share (float): See `checked_share`.

    Returns:
        dict[str, Suggestion]: By the key of a config: frequency_threshold,
        bin_edges and oversample_thr. Counts that are even give the value
        None.
    """
    settings = dict(
        frequency_threshold=suggest_frequency_threshold(
            statistics, checked_share
        ),
        bin_edges=suggest_bin_edges(statistics),
        oversample_thr=suggest_oversample_thr(statistics, annotations),
    )
    for key, unit, counts in (
        ('frequency_threshold', 'images', statistics.image_count),
        ('bin_edges', 'boxes', statistics.instance_count),
        ('oversample_thr', 'images', statistics.image_count),
    ):
        ratio = imbalance(counts)
        if ratio < MIN_IMBALANCE:
            settings[key] = Suggestion(
                None,
                f'the {unit} per class are too even, most : fewest is '
                f'{ratio_text(ratio)}, below {MIN_IMBALANCE}',
            )
    return settings


def suggest_method(
    settings: Mapping[str, Suggestion], checked_share: float = 1.0
) -> Suggestion:
    """Suggest a method by the rules of docs/choosing.md.

    Args:
        settings (Mapping): Those of :func:`suggest_settings`.
        checked_share (float): See `checked_share`.

    Returns:
        Suggestion: The ``--method`` of `longtail make-config`.
    """
    if all(setting.value is None for setting in settings.values()):
        return Suggestion('softmax', 'no method has anything to repair')
    is_federated = checked_share < MAX_FEDERATED_SHARE
    if is_federated and settings['frequency_threshold'].value is not None:
        return Suggestion(
            'eql',
            'images are checked for less than a tenth of the classes, where '
            'EQL gains in rare classes and common ones pay little',
        )
    return Suggestion(
        'softmax',
        'then train the classifier of the finished detector (longtail '
        'two-stage --base-checkpoint WORK_DIR --cached), or calibrate it '
        '(longtail calibrate), which trains nothing',
    )


def checked_share(
    content: Mapping[str, Any], annotations: Annotations
) -> float:
    """Compute the mean share of classes that an image is checked for, 0..1.

    It is 1 but in a federated file, whose images carry
    ``neg_category_ids``: there an image is checked for these classes and for
    those of its boxes. It is about 0.01 in LVIS.
    """
    images = content['images']
    if not any('neg_category_ids' in image for image in images):
        return 1.0
    absent = sum(len(image.get('neg_category_ids') or ()) for image in images)
    present = len(annotations.image_classes()[0])
    return (present + absent) / (len(images) * len(annotations.class_names))


def suggest_frequency_threshold(
    statistics: ClassStatistics, checked_share: float = 1.0
) -> Suggestion:
    """Suggest EQL's lambda: the longest tail within a limit of tail ratio.

    The limit is 9 % where images are checked for less than a tenth of the
    classes, as in LVIS: the paper's best (Tan et al., Equalization Loss for
    Long-Tailed Object Recognition, CVPR 2020, Table 2). Elsewhere it is 2 %,
    the best on the generated glyphs (docs/glyphs.md), where 9 % costs common
    classes 2 points. There a false positive of a tail class counts in more
    images. On 400 glyphs 9 % gains over sigmoid if 2 % or 5 % of the classes
    are checked, not at 35 % (docs/vocabulary.md).

    The value is None if not even the rarest class with a box is tail.
    """
    is_federated = checked_share < MAX_FEDERATED_SHARE
    limit = MAX_FEDERATED_TAIL_RATIO if is_federated else MAX_TAIL_RATIO
    evidence = (
        'the best on LVIS (EQL paper, Table 2), whose images are checked for '
        'few classes, as here'
        if is_federated
        else 'the best on the generated glyphs (docs/glyphs.md); 9 % is the '
        'best on LVIS, whose images are checked for few classes'
    )
    threshold = statistics.threshold_for_tail_ratio(limit)
    is_tail = statistics.is_tail(threshold) & (statistics.image_count > 0)
    if not is_tail.any():
        return Suggestion(
            None,
            'with the rarest class as the tail, the tail ratio would be above '
            f'{100 * limit:g} %, {evidence}',
        )
    # The middle between the most frequent tail class and the next one.
    most_frequent = statistics.image_frequency[is_tail].max()
    middle = float(np.sqrt(most_frequent * threshold))
    threshold = shortest_threshold(statistics, middle)
    return Suggestion(
        threshold,
        f'{statistics.is_tail(threshold).sum():,} of '
        f'{statistics.num_classes:,} classes are tail, tail ratio '
        f'{100 * statistics.tail_ratio(threshold):.2f} %: the most below '
        f'{100 * limit:g} %, {evidence}',
    )


def shortest_threshold(statistics: ClassStatistics, threshold: float) -> float:
    """Round a frequency_threshold in [0, 1] as far as the tail stays equal."""
    rounded = (float(f'{threshold:.{digits}g}') for digits in range(2, 18))
    tail = statistics.is_tail(threshold)
    return next(r for r in rounded if (statistics.is_tail(r) == tail).all())


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


def suggest_oversample_thr(
    statistics: ClassStatistics, annotations: Annotations | None = None
) -> Suggestion:
    """Suggest the threshold t of repeat-factor sampling, in (0, 1].

    It is the largest with which an epoch grows to at most 1.15 times, and no
    image is shown more than 10 times: what LVIS's 1e-3 gives on LVIS
    (docs/samplers.md). The value is None if no class has a box.
    """
    f = statistics.image_frequency
    f = f[f > 0]
    if not f.size:
        return Suggestion(None, 'no class has a box')
    pairs = annotations.image_classes() if annotations else None

    def excess(t: float) -> float:
        return epoch_growth(statistics, t, pairs) - MAX_EPOCH_GROWTH

    t = min(f.min() * MAX_REPEAT_FACTOR**2, 1.0)
    if excess(t) > 0:
        t = brentq(excess, f.min(), t, rtol=1e-3)
    t = float(f'{t:.2g}')
    r_class = np.sqrt(t / f)
    return Suggestion(
        t,
        f'the epoch grows to {epoch_growth(statistics, t, pairs):.2f} times, '
        f'{(r_class > 1).sum():,} of {statistics.num_classes:,} classes are '
        f'repeated, the rarest {r_class.max():.1f} times: as much as with '
        '0.001 on LVIS',
    )


def epoch_growth(
    statistics: ClassStatistics,
    oversample_thr: float,
    image_classes: tuple[np.ndarray, np.ndarray] | None = None,
) -> float:
    """Compute the mean repeat factor of the images, r(I).

    It is the length of an epoch divided by num_images. f(c) is
    `ClassStatistics.image_frequency`, over all images of the file.
    `RepeatFactorSampler` counts the images that the dataset's filters leave.

    Args:
        statistics (ClassStatistics): The counts.
        oversample_thr (float): t, in (0, 1].
        image_classes (tuple, optional): See `Annotations.image_classes`.
            Without it the result is an estimate, as if the classes met in
            images by chance.
    """
    f = statistics.image_frequency
    if image_classes is not None:
        _, r_image = repeat_factors(
            *image_classes, f, statistics.num_images, oversample_thr
        )
        return float(r_image.mean())
    f = np.sort(f[f > 0])  # the largest r(c) first
    r_class = np.maximum(1, np.sqrt(oversample_thr / f))
    # Share of the images without any of the first classes.
    without = np.cumprod([1.0, *(1 - f)])
    return float((without[:-1] * f * r_class).sum() + without[-1])

"""Groups of classes by how often they occur in the training set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmdet_longtail.evaluation.functional.ground_truth import GroundTruth
from mmdet_longtail.structures.bins import bin_index_of, bin_names
from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.utils.class_names import check_same_classes


@dataclass(frozen=True)
class ClassGroup:
    """Classes that share one mean.

    Args:
        key (str): The name of the mean, such as 'APr'.
        name (str): What the group is called, such as 'rare'.
        members (np.ndarray): (C,) bool, the classes in the group.
    """

    key: str
    name: str
    members: np.ndarray


def frequency_groups(statistics: ClassStatistics) -> list[ClassGroup]:
    """Group the classes into rare, common and frequent.

    Args:
        statistics (ClassStatistics): Counts of the training set.

    Returns:
        list[ClassGroup]: Three groups, with the keys APr, APc and APf.
    """
    names = np.array(statistics.frequency_group())
    return [
        ClassGroup(f'AP{name[0]}', name, names == name)
        for name in ('rare', 'common', 'frequent')
    ]


def bin_groups(
    statistics: ClassStatistics,
    bin_by: str,
    bin_edges: Sequence[float],
) -> list[ClassGroup]:
    """Group the classes into half-open bins of a count.

    Args:
        statistics (ClassStatistics): Counts of the training set.
        bin_by (str): 'image_count' or 'instance_count'.
        bin_edges (Sequence[float]): Positive, each larger than the one
            before. (10, 100) makes the bins [0, 10), [10, 100), [100, inf).

    Returns:
        list[ClassGroup]: One group a bin, empty ones too, with keys such as
        AP_below_10, AP_10_to_100 and AP_from_100.
    """
    counts = getattr(statistics, bin_by)
    bin_index = bin_index_of(counts, bin_edges)
    return [
        ClassGroup(f'AP_{name}', name, bin_index == g)
        for g, name in enumerate(bin_names(bin_edges))
    ]


def pool(groups: Sequence[ClassGroup]) -> ClassGroup:
    """Join groups into one.

    Args:
        groups (Sequence[ClassGroup]): Such as rare and common classes.

    Returns:
        ClassGroup: Their classes, with a key such as APr+c and a name such
        as rare+common.
    """
    first, *others = groups
    return ClassGroup(
        '+'.join([first.key, *(g.key.removeprefix('AP') for g in others)]),
        '+'.join(group.name for group in groups),
        np.any([group.members for group in groups], axis=0),
    )


def check_counted_classes(
    ground_truth: GroundTruth,
    statistics: ClassStatistics,
    classes: Sequence[str] | None = None,
) -> None:
    """Check that the training statistics count the validation set's classes.

    Args:
        ground_truth (GroundTruth): The validation set.
        statistics (ClassStatistics): Counts of the training set.
        classes (Sequence[str], optional): Another spelling of the names.

    Raises:
        LongTailError: Naming the first class that differs.
    """
    names = ground_truth.class_names
    counted = statistics.class_names
    if len(names) == len(counted):
        # Either spelling will do.
        names = [
            ours if ours in spellings else spellings[0]
            for ours, *spellings in zip(counted, names, classes or names)
        ]
    check_same_classes(
        names,
        counted,
        ground_truth.source,
        f'the training set ({statistics.source or "class statistics"})',
    )

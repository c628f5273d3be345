"""Names of classes, of a dataset and of what is used with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmdet_longtail.errors import LongTailError


def dataset_classes(dataset: Any) -> tuple[str, ...] | None:
    """Class names of a dataset, or None where it does not say."""
    metainfo = dataset.metainfo
    if isinstance(metainfo, Sequence):  # a concatenation of different ones
        metainfo = metainfo[0]
    classes = metainfo.get('classes')
    return None if classes is None else tuple(classes)


def check_same_classes(
    expected: Sequence[str],
    found: Sequence[str],
    expected_in: str,
    found_in: str,
) -> None:
    """Compare two lists of class names.

    Args:
        expected (Sequence[str]): The names that there should be.
        found (Sequence[str]): The names that there are.
        expected_in (str): What has the first, in words.
        found_in (str): What has the second.

    Raises:
        LongTailError: Naming the first class that differs.
    """
    if len(expected) != len(found):
        raise LongTailError(
            f'{found_in} has {len(found)} classes, but {expected_in} has '
            f'{len(expected)}: use the ones of the same data'
        )
    for label, (ours, theirs) in enumerate(zip(expected, found)):
        if ours != theirs:
            raise LongTailError(
                f'class {label} is {theirs!r} in {found_in}, but {ours!r} in '
                f'{expected_in}: use the ones of the same data'
            )


def check_counted_classes(
    ground_truth: Any,
    statistics: Any,
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

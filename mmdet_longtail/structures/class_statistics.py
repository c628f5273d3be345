"""Counts per class of a training set, tail classes, groups and bins.

Tail classes, frequency groups and bins are defined here alone.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from mmdet_longtail.errors import LongTailError, check, errors_of
from mmdet_longtail.structures.annotation_faults import (
    describe_dropped,
    find_dropped_boxes,
)
from mmdet_longtail.structures.annotations import (
    Annotations,
    parse_annotations,
    read_annotations,
)
from mmdet_longtail.structures.findings import warn_about
from mmdet_longtail.utils.checks import check_numbers
from mmdet_longtail.utils.class_names import check_same_classes
from mmdet_longtail.utils.fileio import read_json, write_atomic
from mmdet_longtail.utils.tables import make_frame

FORMAT = 'mmdet_longtail.class_statistics'
VERSION = 1
CLASS_KEYS = ('name', 'image_count', 'instance_count')
FREQUENCY_GROUPS = ('rare', 'common', 'frequent')
# LVIS: rare classes are in 1-10 training images, common ones in 11-100.
MAX_IMAGE_COUNTS = (10, 100)


@dataclass(frozen=True)
class ClassGroup:
    """Classes that share one mean."""

    key: str  # of the mean, such as 'APr'
    name: str  # of the group, such as 'rare'
    members: np.ndarray  # bool (C,)


def pool(groups: Sequence[ClassGroup]) -> ClassGroup:
    """Join groups into one, such as 'APr+c' of 'rare+common'."""
    first, *others = groups
    return ClassGroup(
        '+'.join([first.key, *(g.key.removeprefix('AP') for g in others)]),
        '+'.join(group.name for group in groups),
        np.any([group.members for group in groups], axis=0),
    )


def check_bin_edges(bin_edges: Any, owner: str = '') -> None:
    """Validate the inner edges of bins: finite, positive and rising.

    Raises:
        LongTailError: Naming the owner, if they are not.
    """
    edges = np.array(bin_edges)
    check(
        edges.ndim == 1
        and edges.size > 0
        and np.issubdtype(edges.dtype, np.number)
        and np.isfinite(edges).all()
        and (np.diff([0, *edges]) > 0).all(),
        f'{owner}{owner and ": "}bin_edges is {bin_edges!r}, expected at '
        'least one number, each positive and larger than the one before, '
        'such as (10, 100, 1000)',
    )


def bin_index_of(counts: np.ndarray, bin_edges: Sequence[float]) -> np.ndarray:
    """Return the bin of each count, (C,) int64 in [0, G), 0 for the smallest.

    Bins are half-open: the G - 1 edges (10, 100) make [0, 10) [10, 100)
    [100, inf). See `check_bin_edges`.
    """
    check_bin_edges(bin_edges)
    return np.searchsorted(np.array(bin_edges), counts, side='right')


def bin_names(bin_edges: Sequence[float]) -> list[str]:
    """Return readable names of the G bins: below_10, 10_to_100, from_100."""
    # Six digits, the default, would give bins of millions the same name.
    edges = [f'{edge:.12g}' for edge in bin_edges]
    inner = [f'{low}_to_{high}' for low, high in pairwise(edges)]
    return [f'below_{edges[0]}', *inner, f'from_{edges[-1]}']


@dataclass(frozen=True, eq=False, repr=False)
class ClassStatistics:
    """Counts of each class in a training set, in label order.

    Only boxes that train are in the counts: see `DROP_REASONS`. A class
    without any training instance is legal.

    Args:
        class_names (tuple[str, ...]): C names; position is the label.
        image_count (np.ndarray): Images that contain the class, (C,) int64.
        instance_count (np.ndarray): Boxes of the class, (C,) int64.
        num_images (int): Images in the training set, annotated or not.
        num_annotated_images (int): Images with at least one counted box.
        source (str): Where the counts come from; not part of equality.

    Raises:
        LongTailError: If the counts contradict each other.
    """

    class_names: tuple[str, ...]
    image_count: np.ndarray
    instance_count: np.ndarray
    num_images: int
    num_annotated_images: int
    source: str = ''

    def __post_init__(self) -> None:
        names = self.class_names
        names = () if isinstance(names, str) else tuple(names)
        check(
            names and all(isinstance(name, str) for name in names),
            'class_names: expected at least one class, each a string, found '
            f'{self.class_names!r:.60}',
        )
        object.__setattr__(self, 'class_names', names)
        for key in ('image_count', 'instance_count'):
            counts = _counts(key, getattr(self, key), len(names))
            object.__setattr__(self, key, counts)
        for key in ('num_images', 'num_annotated_images'):
            value = getattr(self, key)
            check(
                isinstance(value, int | np.integer)
                and not isinstance(value, bool)
                and value >= 0,
                f'{key} is {value!r}, expected a whole number of 0 or more',
            )
            object.__setattr__(self, key, int(value))
        num_annotated = self.num_annotated_images
        check(
            self.num_images > 0,
            'num_images is 0, but a training set has at least one image',
        )
        check(
            num_annotated <= self.num_images,
            f'num_annotated_images is {num_annotated}, more than num_images '
            f'({self.num_images})',
        )
        for name, images, instances in zip(
            self.class_names, self.image_count, self.instance_count
        ):
            check(
                images <= num_annotated,
                f'class {name!r}: image_count is {images}, more than '
                f'num_annotated_images ({num_annotated})',
            )
            check(
                1 <= images <= instances or images == instances == 0,
                f'class {name!r}: image_count is {images} with an '
                f'instance_count of {instances}; expected 1 <= image_count '
                '<= instance_count, or both 0',
            )
        check(
            self.image_count.sum() >= num_annotated,
            f'image_count sums to {self.image_count.sum()}, but each of the '
            f'{num_annotated} annotated images holds at least one class',
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ClassStatistics):
            return NotImplemented
        return {**self.to_dict(), 'source': other.source} == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return (
            f'ClassStatistics({self.num_classes} classes, '
            f'{self.instance_count.sum()} boxes, {self.num_images} images)'
        )

    @property
    def num_classes(self) -> int:
        """Number of foreground classes C."""
        return len(self.class_names)

    @property
    def image_frequency(self) -> np.ndarray:
        """Share of all images that contain the class, (C,) float64.

        It is f(c) of LVIS, of repeat-factor sampling and of EQL.
        """
        return self.image_count / self.num_images

    def is_tail(self, frequency_threshold: float) -> np.ndarray:
        """Return the mask of tail classes, image_frequency < lambda, (C,).

        The threshold is EQL's lambda, in [0, 1]. A class exactly on lambda is
        not tail.
        """
        check_numbers('', '[0, 1]', frequency_threshold=frequency_threshold)
        return self.image_frequency < frequency_threshold

    def tail_ratio(self, frequency_threshold: float) -> float:
        """Return the share of image_count that lies in tail classes, 0..1.

        TR(lambda) = sum of T(f_c) N_c / sum of N_c with N_c = image_count
        (Tan et al., Equalization Loss for Long-Tailed Object Recognition,
        CVPR 2020). It is 0 when no image has a box. See `is_tail`.
        """
        return self.image_share(self.is_tail(frequency_threshold))

    def image_share(self, members: np.ndarray) -> float:
        """Return the share of image_count in classes of a mask (C,), 0..1."""
        share = self.image_count[members].sum() / max(
            self.image_count.sum(), 1
        )
        return float(share)

    def threshold_for_tail_ratio(self, tail_ratio: float) -> float:
        """Return the largest threshold, 0..1, within a limit of tail ratio.

        The tail ratio grows just above each distinct image_frequency, so the
        largest threshold is one of these, or 1. The limit is in [0, 1].
        """
        check_numbers('', '[0, 1]', tail_ratio=tail_ratio)
        thresholds = np.unique([*self.image_frequency, 1.0])
        order = np.argsort(self.image_count)
        below = np.searchsorted(self.image_frequency[order], thresholds)
        tail_image_count = np.cumsum([0, *self.image_count[order]])[below]
        ratios = tail_image_count / max(self.image_count.sum(), 1)
        return float(thresholds[ratios <= tail_ratio].max())

    def frequency_group(self) -> tuple[str, ...]:
        """Return the LVIS group of each class, by its image_count, (C,).

        A class is 'rare' (0-10 images), 'common' (11-100) or 'frequent'.
        """
        index = np.searchsorted(MAX_IMAGE_COUNTS, self.image_count)
        return tuple(np.array(FREQUENCY_GROUPS)[index].tolist())

    def frequency_groups(self) -> list[ClassGroup]:
        """Return the groups of APr, APc and APf, empty ones too."""
        groups = np.array(self.frequency_group())
        return [
            ClassGroup(f'AP{name[0]}', name, groups == name)
            for name in FREQUENCY_GROUPS
        ]

    def bin_index(self, bin_edges: Sequence[float]) -> np.ndarray:
        """Return the bin of each class, by instance_count: `bin_index_of`."""
        return bin_index_of(self.instance_count, bin_edges)

    def bin_groups(
        self, bin_edges: Sequence[float], bin_by: str = 'instance_count'
    ) -> list[ClassGroup]:
        """Return the G bins of a count as groups, empty ones too.

        A key is such as 'AP_below_10'. The count, ``bin_by``, is
        'instance_count' or 'image_count'.
        """
        index = bin_index_of(getattr(self, bin_by), bin_edges)
        return [
            ClassGroup(f'AP_{name}', name, index == g)
            for g, name in enumerate(bin_names(bin_edges))
        ]

    @classmethod
    def from_annotation_file(cls, path: str | Path) -> 'ClassStatistics':
        """Count the boxes of a COCO or LVIS annotation file that train.

        Labels follow the order of the file's categories. Boxes that mmdet's
        ``CocoDataset`` drops do not count; a warning reports their number.

        Raises:
            LongTailError: If the file is missing, broken or inconsistent, or
                if none of its boxes trains.
        """
        content = read_json(path)
        return _warned([parse_annotations(content, str(path))])

    @classmethod
    def from_annotations(cls, *parts: Annotations) -> 'ClassStatistics':
        """Count boxes and images of the parts of a training set.

        `find_dropped_boxes` reports the boxes that do not count.

        Raises:
            LongTailError: If no box trains, or if the parts have different
                classes.
        """
        statistics = _add([*map(_count, parts)])
        check(
            statistics.num_annotated_images,
            f'{statistics.source}: {describe_dropped(parts)}',
        )
        return statistics

    @classmethod
    def from_dataset(cls, dataset: Any) -> 'ClassStatistics':
        """Count the boxes that an mmdet dataset yields to the training.

        Repeated images count once. Wrappers (RepeatDataset,
        ClassBalancedDataset, MultiImageMixDataset) are unwrapped; the parts
        of a ConcatDataset are added. Images that ``filter_cfg`` drops are in
        num_images, but their boxes are not in the counts. A warning reports
        the boxes of the annotation file that the dataset does not yield. In
        mmpretrain's datasets with one label per image, image_count and
        instance_count are both the number of images of the class.

        Raises:
            LongTailError: If the file is broken, if the class names of the
                dataset do not fit its labels, or if no box trains.
        """
        return _warned(read_annotations(dataset))

    def save(self, path: str | Path) -> None:
        """Write the counts as JSON, atomically: see `write_atomic`."""
        write_atomic(path, json.dumps(self.to_dict(), indent=1) + '\n')

    @classmethod
    def load(cls, path: str | Path) -> 'ClassStatistics':
        """Load the JSON file of `save`.

        Raises:
            LongTailError: If the file is missing or has other content.
        """
        content = read_json(path)
        with errors_of(path):
            return cls.from_dict(content)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of the JSON, as plain Python values."""
        counts = self.image_count.tolist(), self.instance_count.tolist()
        rows = zip(self.class_names, *counts)
        return {
            'format': FORMAT,
            'version': VERSION,
            'source': self.source,
            'num_images': self.num_images,
            'num_annotated_images': self.num_annotated_images,
            'classes': [dict(zip(CLASS_KEYS, row)) for row in rows],
        }

    def to_frame(self) -> Any:
        """Return the counts as a pandas DataFrame, one row per class.

        The columns are name, image_count, instance_count, image_frequency
        and group.

        Raises:
            LongTailError: If pandas is not installed.
        """
        return make_frame(
            {
                'name': self.class_names,
                'image_count': self.image_count,
                'instance_count': self.instance_count,
                'image_frequency': self.image_frequency,
                'group': self.frequency_group(),
            }
        )

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> 'ClassStatistics':
        """Build the statistics from the result of `to_dict`.

        Raises:
            LongTailError: If it is no such content, or of another version.
        """
        check(
            isinstance(content, Mapping) and content.get('format') == FORMAT,
            f"not class statistics: expected 'format' to be '{FORMAT}'; "
            'tools/class_statistics.py ANNOTATIONS --out writes such a file',
        )
        check(
            content.get('version') == VERSION,
            f'class statistics of version {content.get("version")!r}, '
            f'expected {VERSION}; write them again with '
            'tools/class_statistics.py',
        )
        try:
            columns: Any = (
                [c[key] for c in content['classes']] for key in CLASS_KEYS
            )
            names, image_count, instance_count = columns
            return cls(
                names,
                image_count,
                instance_count,
                content['num_images'],
                content['num_annotated_images'],
                str(content.get('source', '')),
            )
        except KeyError as error:
            raise LongTailError(
                f'class statistics lack {error}; write them again with '
                'tools/class_statistics.py'
            ) from None
        except TypeError:
            raise LongTailError(
                "class statistics: expected 'classes' to be a list of "
                'objects with name, image_count and instance_count'
            ) from None


def _warned(parts: Sequence[Annotations]) -> ClassStatistics:
    """Count the parts of a training set, and warn about boxes left out."""
    statistics = ClassStatistics.from_annotations(*parts)
    for part in parts:
        warn_about(find_dropped_boxes(part), stacklevel=3)
    return statistics


def _count(annotations: Annotations) -> ClassStatistics:
    """Count boxes and images of one part of a training set."""
    num_classes = len(annotations.class_names)
    image_index, class_index = annotations.image_classes()
    return ClassStatistics(
        annotations.class_names,
        np.bincount(class_index, minlength=num_classes),
        np.bincount(annotations.class_index, minlength=num_classes),
        annotations.num_images,
        int(np.count_nonzero(np.bincount(image_index))),
        annotations.source,
    )


def _add(parts: Sequence[ClassStatistics]) -> ClassStatistics:
    """Add the counts of the parts of a concatenated dataset."""
    first = parts[0]
    for part in parts[1:]:
        check_same_classes(
            first.class_names,
            part.class_names,
            first.source,
            part.source,
            way_out='concatenated datasets need the same classes in order',
        )
    return ClassStatistics(
        first.class_names,
        np.sum([part.image_count for part in parts], axis=0),
        np.sum([part.instance_count for part in parts], axis=0),
        sum(part.num_images for part in parts),
        sum(part.num_annotated_images for part in parts),
        ', '.join(part.source for part in parts),
    )


def _counts(key: str, value: Any, num_classes: int) -> np.ndarray:
    """Copy counts into a read-only (C,) int64 array."""
    try:
        counts = np.array(value)
    except ValueError:  # lists of different lengths
        counts = np.array(None)
    check(
        counts.shape == (num_classes,)
        and np.issubdtype(counts.dtype, np.integer),
        f'{key}: expected whole numbers, one for each of the {num_classes} '
        f'classes, found {value!r:.60}',
    )
    counts = counts.astype(np.int64)
    counts.setflags(write=False)
    return counts

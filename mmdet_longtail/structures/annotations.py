"""COCO and LVIS annotation files, and the boxes that train a dataset.

A box trains if mmdet's ``CocoDataset`` yields it, without the mark of a crowd.
"""

import copy
import dataclasses
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np

from mmdet_longtail.errors import LongTailError, check
from mmdet_longtail.structures.annotation_fields import (
    SECTIONS,
    box_array,
    find_structure_faults,
    numbers,
)
from mmdet_longtail.utils.class_names import check_same_classes
from mmdet_longtail.utils.fileio import read_json

# Category ids of an image in LVIS: checked and absent; present, but not all
# of their objects are annotated.
FEDERATED_KEYS = ('neg_category_ids', 'not_exhaustive_category_ids')
# The labels that they lead to, in an image's metainfo.
IMAGE_LEVEL_KEYS = ('present_labels', 'absent_labels')
COCO_URL = 'http://images.cocodataset.org/'
# Reasons why a box does not train, in the order of the columns of
# `Annotations.dropped`.
DROP_REASONS = (
    'crowd or ignored',
    'coordinates of 0 to 1 in place of pixels',
    'no area',
    'smaller than a pixel',
    'outside the stated size of the image',
    'in an image that the dataset filters',
    'dropped by the dataset',
)
IGNORED, NORMALIZED, NO_AREA, TINY, OUTSIDE, FILTERED, OTHER = range(7)


@dataclass(frozen=True, eq=False, repr=False)
class Annotations:
    """Class and image of each of N boxes of C classes that train."""

    source: str  # where the boxes were read
    class_names: tuple[str, ...]  # (C,), position is the label
    category_ids: tuple[Hashable, ...]  # (C,), as in the file
    num_images: int  # annotated or not
    image_index: np.ndarray  # (N,) int64 in [0, num_images)
    class_index: np.ndarray  # (N,) int64 in [0, C)
    dropped: np.ndarray  # (C, len(DROP_REASONS)) int64, other boxes
    num_degenerate: int = 0  # of the N boxes, those of zero or negative size

    def image_classes(self) -> tuple[np.ndarray, np.ndarray]:
        """Return each class of each image once.

        The pairs are image_index (M,), rising, and class_index (M,).
        """
        num_classes = len(self.class_names)
        # A hundred times faster than np.unique, which hashes.
        pairs = np.sort(self.image_index * num_classes + self.class_index)
        is_first = np.diff(pairs, prepend=-1) > 0
        return np.divmod(pairs[is_first], num_classes)

    def select(
        self, category_ids: Sequence[Hashable], class_names: Sequence[str]
    ) -> 'Annotations':
        """Select categories by their ids, in the order given."""
        label_of = {c: label for label, c in enumerate(self.category_ids)}
        chosen = [label_of[c] for c in category_ids]
        new_label = np.full(len(self.category_ids), -1)
        new_label[chosen] = np.arange(len(chosen))
        class_index = new_label[self.class_index]
        kept = class_index >= 0
        return dataclasses.replace(
            self,
            class_names=tuple(class_names),
            category_ids=tuple(category_ids),
            image_index=self.image_index[kept],
            class_index=class_index[kept],
            dropped=self.dropped[chosen],
        )


def image_file_name(image: Mapping[str, Any]) -> str:
    """Return the path of an image entry, relative to the folder of all images.

    LVIS v1 has no file name, only a URL.
    """
    url = str(image.get('coco_url') or '')
    return image.get('file_name') or url.replace(COCO_URL, '')


def image_size(image: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return height and width of an image entry, None where missing."""
    return image.get('height'), image.get('width')


def parse_annotations(content: Any, source: str) -> Annotations:
    """Validate the JSON content of a COCO or LVIS file and return its boxes.

    Boxes that mmdet's ``CocoDataset`` drops are in ``dropped``. A rule does
    not apply where its field (``area``, ``width``, ``height``) is missing.

    Raises:
        LongTailError: If something is missing or inconsistent.
    """
    try:
        categories, images, annotations = map(content.get, SECTIONS)
        names = tuple(category['name'] for category in categories)
        label_of = _positions(categories)
        image_of = _positions(images)
        image = [image_of[a['image_id']] for a in annotations]
        label = [label_of[a['category_id']] for a in annotations]
        boxes = box_array(a['bbox'] for a in annotations)
        if not all(isinstance(name, str) for name in names):
            raise TypeError
    except (AttributeError, KeyError, TypeError, ValueError):
        # Only here, as it takes longer than the reading.
        report, _ = find_structure_faults(content, source)
        report.raise_first()
        raise
    image_index = np.array(image, np.int64)
    class_index = np.array(label, np.int64)
    size = [numbers(images, key)[image_index] for key in ('width', 'height')]
    reason = _drop_reasons(
        [bool(a.get('iscrowd') or a.get('ignore')) for a in annotations],
        boxes,
        numbers(annotations, 'area'),
        np.array(size),
    )
    is_kept = reason < 0
    return Annotations(
        source=source,
        class_names=names,
        category_ids=tuple(label_of),
        num_images=len(images),
        image_index=image_index[is_kept],
        class_index=class_index[is_kept],
        dropped=_count_pairs(
            class_index[~is_kept],
            reason[~is_kept],
            (len(categories), len(DROP_REASONS)),
        ),
    )


def _positions(entries: list[dict]) -> dict[Hashable, int]:
    """Map the ids of a section to their positions.

    Raises:
        ValueError: If there is none, or an id twice or of another type.
    """
    positions = {entry['id']: i for i, entry in enumerate(entries)}
    if not (
        positions
        and len(positions) == len(entries)
        and all(isinstance(i, int | str) for i in positions)
    ):
        raise ValueError('not the ids of a section')
    return positions


def _drop_reasons(
    is_ignored: Sequence[bool],
    boxes: np.ndarray,
    area: np.ndarray,
    size: np.ndarray,
) -> np.ndarray:
    """Return the reason why mmdet drops each box (m,), -1 for a box it yields.

    Args:
        is_ignored (Sequence[bool]): (m,).
        boxes (np.ndarray): (m, 4) x, y, width, height in pixels.
        area (np.ndarray): (m,), NaN if unknown.
        size (np.ndarray): (2, m) width and height of the image, NaN if
            unknown.
    """
    low, extent = boxes[:, :2].T, boxes[:, 2:].T
    with np.errstate(over='ignore'):
        high = low + extent
    overlap = np.fmin(high, size) - np.maximum(low, 0)
    has_area = ~(area <= 0) & (extent > 0).all(0)
    is_fraction = (low >= 0).all(0) & (high <= 1).all(0) & (extent > 0).all(0)
    reason = np.full(len(boxes), -1)
    # The first that applies is set last.
    reason[~(overlap > 0).all(0)] = OUTSIDE
    reason[(extent < 1).any(0)] = TINY
    reason[~has_area] = NO_AREA
    reason[is_fraction & (reason >= 0)] = NORMALIZED
    reason[np.array(is_ignored, bool)] = IGNORED
    return reason


def _count_pairs(
    row: np.ndarray, column: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """Count each pair of a row and a column in an int64 array of a shape."""
    pairs = row * shape[1] + column
    return np.bincount(pairs, minlength=shape[0] * shape[1]).reshape(shape)


def select_annotations(
    content: dict[str, Any], is_kept: Iterable[bool], source: str
) -> dict[str, Any]:
    """Select annotations, the images that have one, and all categories.

    The content, of the file ``source``, is not changed.

    Raises:
        LongTailError: If no annotation is kept.
    """
    annotations = [*compress(content['annotations'], is_kept)]
    check(annotations, f'{source}: none of its annotations is kept')
    used = {annotation['image_id'] for annotation in annotations}
    images = [image for image in content['images'] if image['id'] in used]
    return content | {'images': images, 'annotations': annotations}


def read_annotations(dataset: Any) -> list[Annotations]:
    """Read the boxes that a dataset of mmdet or mmpretrain yields.

    Wrappers (RepeatDataset, ClassBalancedDataset, MultiImageMixDataset) are
    unwrapped. There is one record per part of a ConcatDataset.

    Raises:
        LongTailError: If boxes are missing, or contradict the class names.
    """
    from mmdet.datasets import CocoDataset, CocoPanopticDataset

    while hasattr(dataset, 'dataset'):
        dataset = dataset.dataset
    if hasattr(dataset, 'datasets'):
        return [
            annotations
            for part in dataset.datasets
            for annotations in read_annotations(part)
        ]
    if isinstance(dataset, CocoDataset) and not isinstance(
        dataset, CocoPanopticDataset
    ):
        return [_read_coco_dataset(dataset)]
    return [_read_labels(dataset)]


def _read_coco_dataset(dataset: Any) -> Annotations:
    """Read a CocoDataset and its file, in the dataset's label order."""
    from mmengine.fileio import get_local_path

    dataset.full_init()
    source = str(dataset.ann_file)
    backend = dataset.backend_args
    with get_local_path(source, backend_args=backend) as local_path:
        content = read_json(local_path)
    annotations = parse_annotations(content, source)
    name_of = dict(zip(annotations.category_ids, annotations.class_names))
    found = [name_of[category_id] for category_id in dataset.cat_ids]
    names = _metainfo_classes(dataset)
    if len(found) < len(names):
        name = next(iter(Counter(names) - Counter(found)))
        raise LongTailError(
            f"{source}: no category is named {name!r}, but the dataset's "
            'metainfo has this class; correct metainfo.classes'
        )
    if len(found) > len(names):
        name = next(iter(Counter(found) - Counter(names)))
        raise LongTailError(
            f'{source}: the dataset labels the category {name!r}, but its '
            'metainfo lacks this class; correct metainfo.classes'
        )
    check_same_classes(
        names,
        found,
        "the dataset's metainfo",
        source,
        way_out='put metainfo.classes into the order of the file',
        may_rename=True,
    )
    if getattr(dataset, '_indices', None) is not None:
        content = _restrict_to_subset(content, dataset)
        annotations = parse_annotations(content, source)
    image_ids = [image['id'] for image in content['images']]
    expected = annotations.select(dataset.cat_ids, found)
    return _yielded(expected, dataset, image_ids)


def _restrict_to_subset(content: dict, dataset: Any) -> dict:
    """Restrict the content of a file to the images of ``indices``."""
    infos = map(dataset.get_data_info, range(len(dataset)))
    ids = {info['img_id'] for info in infos}
    return content | {
        'images': [i for i in content['images'] if i['id'] in ids],
        'annotations': [
            a for a in content['annotations'] if a['image_id'] in ids
        ],
    }


def _yielded(
    expected: Annotations, dataset: Any, image_ids: Sequence[Hashable]
) -> Annotations:
    """Replace the boxes that a dataset should yield by those that it yields.

    Each other box is counted by the reason why it is not yielded.
    """
    source, C = expected.source, len(expected.class_names)
    instances = _read_instances(dataset, source, C)
    position = {image_id: i for i, image_id in enumerate(image_ids)}
    try:
        image = np.array([position[i] for i in instances.image_ids], np.int64)
    except (KeyError, TypeError):
        raise LongTailError(
            f"{source}: {type(dataset).__name__} yields an 'img_id' that no "
            'image of the file has, so its boxes cannot be counted; give '
            'ClassStatisticsHook a class_statistics file'
        ) from None
    is_filtered = np.full(len(image_ids), True)
    is_filtered[image] = False
    filtered = expected.class_index[is_filtered[expected.image_index]]
    dropped = expected.dropped.copy()
    dropped[:, FILTERED] = np.bincount(filtered, minlength=C)
    total = np.bincount(expected.class_index, minlength=C)
    total += expected.dropped.sum(1)
    counts = np.bincount(instances.label, minlength=C)
    rest = total - counts - dropped.sum(1)
    # Where a dataset yields what mmdet's drops, the reasons do not apply.
    dropped[rest < 0] = 0
    dropped[:, OTHER] = np.maximum(total - counts - dropped.sum(1), 0)
    return dataclasses.replace(
        expected,
        image_index=image[instances.image],
        class_index=instances.label,
        dropped=dropped,
        num_degenerate=instances.num_degenerate,
    )


def _read_labels(dataset: Any) -> Annotations:
    """Read a dataset that has no COCO file, image by image."""
    dataset.full_init()
    kind = type(dataset).__name__
    source = str(getattr(dataset, 'ann_file', '') or kind)
    names = _metainfo_classes(dataset)
    C = len(names)
    instances = unfiltered = _read_instances(dataset, source, C)
    if getattr(dataset, 'filter_cfg', None) is not None:
        dataset = copy.copy(dataset)
        dataset.filter_cfg = None
        dataset._fully_initialized = False
        dataset.full_init()
        unfiltered = _read_instances(dataset, source, C)
    dropped = np.zeros((C, len(DROP_REASONS)), np.int64)
    dropped[:, IGNORED] = instances.num_ignored
    dropped[:, FILTERED] = np.maximum(
        unfiltered.num_boxes() - instances.num_boxes(), 0
    )
    return Annotations(
        source=source,
        class_names=names,
        category_ids=tuple(range(C)),
        num_images=len(unfiltered.image_ids),
        image_index=instances.image,
        class_index=instances.label,
        dropped=dropped,
        num_degenerate=instances.num_degenerate,
    )


@dataclass(frozen=True, eq=False)
class _Instances:
    """Boxes, or labels of images, that a dataset of C classes yields."""

    image_ids: list[Any]  # of the images, None where they have none
    image: np.ndarray  # (N,) int64, position in image_ids
    label: np.ndarray  # (N,) int64 in [0, C)
    num_ignored: np.ndarray  # (C,) int64, not among the N
    num_degenerate: int  # of the N boxes, those of zero or negative size

    def num_boxes(self) -> np.ndarray:
        """Return the number of boxes per class, (C,) int64."""
        count = np.bincount(self.label, minlength=len(self.num_ignored))
        return count + self.num_ignored


def _read_instances(dataset: Any, source: str, C: int) -> _Instances:
    """Read what a dataset of C classes yields, image by image."""
    kind = type(dataset).__name__
    # One label per image in mmpretrain's datasets.
    is_labeled = hasattr(dataset, 'get_gt_labels')
    key = 'gt_label' if is_labeled else 'instances'
    image_ids, images, labels, ignored = [], [], [], []
    num_degenerate = 0
    for image in range(len(dataset)):
        info = dataset.get_data_info(image)
        image_ids.append(info.get('img_id'))
        try:
            if is_labeled:
                images.append(image)
                labels.append(int(info[key]))
                continue
            for instance in info[key]:
                if instance.get('ignore_flag', 0):
                    ignored.append(int(instance['bbox_label']))
                    continue
                x1, y1, x2, y2 = instance['bbox']
                num_degenerate += not (x2 > x1 and y2 > y1)
                images.append(image)
                labels.append(int(instance['bbox_label']))
        except (KeyError, TypeError, ValueError):
            raise LongTailError(
                f'{source}: {kind} gives no usable {key!r} for image {image}, '
                'so its classes cannot be counted; give ClassStatisticsHook a '
                'class_statistics file'
            ) from None
    for label in {*labels} - {*range(C)}:
        raise LongTailError(
            f'{source}: a box or image has the label {label}, but the '
            f"dataset's metainfo has {C} classes"
        )
    # A region to ignore has no class.
    with_class = [label for label in ignored if 0 <= label < C]
    return _Instances(
        image_ids,
        np.array(images, np.int64),
        np.array(labels, np.int64),
        np.bincount(np.array(with_class, np.int64), minlength=C),
        num_degenerate,
    )


def _metainfo_classes(dataset: Any) -> tuple[str, ...]:
    classes = dataset.metainfo.get('classes')
    check(
        classes and not isinstance(classes, str),
        f'{type(dataset).__name__}: metainfo.classes is {classes!r}, expected '
        'the class names',
    )
    return tuple(classes)

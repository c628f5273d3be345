"""COCO and LVIS annotation files, and the boxes behind a dataset.

Importing needs the standard library and numpy only.
"""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.utils.class_names import check_same_classes
from mmdet_longtail.utils.fileio import read_json

# Category ids of an image in LVIS: checked and absent; present, but not all
# of their objects are annotated.
FEDERATED_KEYS = ('neg_category_ids', 'not_exhaustive_category_ids')
# The labels that they lead to, in an image's metainfo.
IMAGE_LEVEL_KEYS = ('present_labels', 'absent_labels')
COCO_URL = 'http://images.cocodataset.org/'


@dataclass(frozen=True, eq=False)
class Annotations:
    """Class and image of each counted box of a dataset.

    Args:
        source (str): Where the boxes were read.
        class_names (tuple[str, ...]): C names; position is the label.
        category_ids (tuple[Hashable, ...]): C ids as in the file.
        num_images (int): Images, annotated or not.
        image_index (np.ndarray): (N,) int64 in [0, num_images).
        class_index (np.ndarray): (N,) int64 in [0, C).
        degenerate (np.ndarray): (N,) bool, boxes of zero or negative size.
    """

    source: str
    class_names: tuple[str, ...]
    category_ids: tuple[Hashable, ...]
    num_images: int
    image_index: np.ndarray = field(repr=False)
    class_index: np.ndarray = field(repr=False)
    degenerate: np.ndarray = field(repr=False)

    def image_classes(self) -> tuple[np.ndarray, np.ndarray]:
        """Return each class of each image once.

        Returns:
            tuple[np.ndarray, np.ndarray]: image_index (M,) rising, and
            class_index (M,).
        """
        num_classes = len(self.class_names)
        # A hundred times faster than np.unique, which hashes.
        pairs = np.sort(self.image_index * num_classes + self.class_index)
        is_first = np.diff(pairs, prepend=-1) > 0
        return np.divmod(pairs[is_first], num_classes)

    def select(
        self, category_ids: Sequence[Hashable], class_names: Sequence[str]
    ) -> Annotations:
        """Select categories, in the order given.

        Args:
            category_ids (Sequence[Hashable]): Ids that the file has.
            class_names (Sequence[str]): One name per id.
        """
        old_label = {c: label for label, c in enumerate(self.category_ids)}
        new_label = np.full(len(self.category_ids), -1)
        new_label[[old_label[c] for c in category_ids]] = np.arange(
            len(category_ids)
        )
        class_index = new_label[self.class_index]
        kept = class_index >= 0
        return dataclasses.replace(
            self,
            class_names=tuple(class_names),
            category_ids=tuple(category_ids),
            image_index=self.image_index[kept],
            class_index=class_index[kept],
            degenerate=self.degenerate[kept],
        )


def image_file_name(image: Mapping[str, Any]) -> str:
    """Return the path of an image, relative to the folder of all images.

    Args:
        image (Mapping[str, Any]): Its entry in a COCO or LVIS file. LVIS v1
            has no file name, only a URL.
    """
    url = image.get('coco_url', '')
    return image.get('file_name', url.replace(COCO_URL, ''))


def read_annotations(path: str | Path) -> Annotations:
    """Read a COCO or LVIS annotation file.

    Args:
        path (str | Path): JSON file on the local disk.

    Raises:
        LongTailError: If the file is missing, broken or inconsistent.
    """
    return parse_annotations(read_json(path), str(path))


def parse_annotations(content: Any, source: str) -> Annotations:
    """Validate the content of a COCO or LVIS file and return its boxes.

    Args:
        content (Any): The parsed JSON.
        source (str): Path of the file, for messages.

    Raises:
        LongTailError: If something is missing or inconsistent.
    """
    categories = _section(content, 'categories', source)
    images = _section(content, 'images', source)
    annotations = _section(content, 'annotations', source)
    label_of = _positions(categories, 'categories', source)
    image_of = _positions(images, 'images', source)
    size = len(annotations)
    try:
        class_index = np.fromiter(
            (label_of[a['category_id']] for a in annotations), np.int64, size
        )
        image_index = np.fromiter(
            (image_of[a['image_id']] for a in annotations), np.int64, size
        )
        boxes = (a['bbox'] for a in annotations)
        degenerate = np.fromiter(
            (not (w > 0 and h > 0) for _, _, w, h in boxes), bool, size
        )
    except (KeyError, TypeError, ValueError):
        # Only here, as it takes longer than the reading.
        for i, annotation in enumerate(annotations):
            place = f'{source}: annotations[{i}]'
            _check_annotation(annotation, label_of, image_of, place)
        raise
    counted = np.fromiter(
        (not (a.get('iscrowd') or a.get('ignore')) for a in annotations),
        bool,
        size,
    )
    return Annotations(
        source=source,
        class_names=_category_names(categories, source),
        category_ids=tuple(label_of),
        num_images=len(images),
        image_index=image_index[counted],
        class_index=class_index[counted],
        degenerate=degenerate[counted],
    )


def select_annotations(
    content: dict[str, Any], is_kept: Iterable[bool], source: str
) -> dict[str, Any]:
    """Select annotations, the images that have one, and all categories.

    Args:
        content (dict): A parsed annotation file; not changed.
        is_kept (Iterable[bool]): Whether to keep each annotation.
        source (str): Path of the file, for the message.

    Raises:
        LongTailError: If no annotation is kept.
    """
    annotations = list(compress(content['annotations'], is_kept))
    if not annotations:
        raise LongTailError(f'{source}: none of its annotations is kept')
    used = {annotation['image_id'] for annotation in annotations}
    images = [image for image in content['images'] if image['id'] in used]
    return content | {'images': images, 'annotations': annotations}


def read_coco_dataset(dataset: Any) -> Annotations:
    """Read the file behind a CocoDataset, in the dataset's label order."""
    from mmengine.fileio import get_local_path

    dataset.full_init()
    source = str(dataset.ann_file)
    with get_local_path(
        source, backend_args=dataset.backend_args
    ) as local_path:
        annotations = parse_annotations(read_json(local_path), source)
    name_of = dict(
        zip(annotations.category_ids, annotations.class_names, strict=True)
    )
    found = [name_of[category_id] for category_id in dataset.cat_ids]
    names = _metainfo_classes(dataset)
    if len(found) < len(names):
        (name, *_) = Counter(names) - Counter(found)
        raise LongTailError(
            f"{source}: no category is named {name!r}, but the dataset's "
            'metainfo has this class; correct metainfo.classes'
        )
    if len(found) > len(names):
        (name, *_) = Counter(found) - Counter(names)
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
    return annotations.select(dataset.cat_ids, tuple(found))


def read_data_infos(dataset: Any) -> Annotations:
    """Read a dataset that has no COCO file, image by image."""
    if getattr(dataset, 'filter_cfg', None) is not None:
        dataset = copy.copy(dataset)
        dataset.filter_cfg = None
        dataset._fully_initialized = False
    dataset.full_init()
    image_index = []
    class_index = []
    degenerate = []
    for image in range(len(dataset)):
        try:
            for instance in dataset.get_data_info(image)['instances']:
                if instance.get('ignore_flag', 0):
                    continue
                x1, y1, x2, y2 = instance['bbox']
                image_index.append(image)
                class_index.append(instance['bbox_label'])
                degenerate.append(not (x2 > x1 and y2 > y1))
        except KeyError as error:
            raise LongTailError(
                f'{_source(dataset)}: {type(dataset).__name__} gives no '
                f'{error} for image {image}, so its classes cannot be '
                'counted; give ClassStatisticsHook a class_statistics file'
            ) from None
    return _labeled(
        dataset, len(dataset), image_index, class_index, degenerate
    )


def read_image_labels(dataset: Any) -> Annotations:
    """Read a classification dataset: one instance per image."""
    dataset.full_init()
    try:
        labels = np.array(dataset.get_gt_labels(), dtype=np.int64)
    except (KeyError, TypeError, ValueError):
        raise LongTailError(
            f'{_source(dataset)}: {type(dataset).__name__} does not give each '
            "image one 'gt_label', so its classes cannot be counted; give "
            'ClassStatisticsHook a class_statistics file'
        ) from None
    size = len(labels)
    return _labeled(dataset, size, range(size), labels, [False] * size)


def _source(dataset: Any) -> str:
    return str(getattr(dataset, 'ann_file', '') or type(dataset).__name__)


def _labeled(
    dataset: Any,
    num_images: int,
    image_index: Sequence[int],
    class_index: Sequence[int] | np.ndarray,
    degenerate: Sequence[bool],
) -> Annotations:
    """Validate the labels of a dataset and return its boxes."""
    names = _metainfo_classes(dataset)
    labels = np.array(class_index, dtype=np.int64)
    for label in {*labels.tolist()} - {*range(len(names))}:
        raise LongTailError(
            f'{_source(dataset)}: a box or image has the label {label}, but '
            f"the dataset's metainfo has {len(names)} classes"
        )
    return Annotations(
        source=_source(dataset),
        class_names=names,
        category_ids=tuple(range(len(names))),
        num_images=num_images,
        image_index=np.array(image_index, dtype=np.int64),
        class_index=labels,
        degenerate=np.array(degenerate, dtype=bool),
    )


def _section(content: Any, key: str, source: str) -> list:
    """Return a list of the file."""
    if not isinstance(content, dict):
        raise LongTailError(
            f'{source}: expected a JSON object with categories, images and '
            f'annotations, found a {type(content).__name__}'
        )
    if not isinstance(content.get(key), list):
        found = ', '.join(map(repr, content)) or 'nothing'
        raise LongTailError(
            f"{source}: the list '{key}' is missing, found {found}; expected "
            'COCO or LVIS annotations of a training set'
        )
    return content[key]


def _positions(
    entries: list, section: str, source: str
) -> dict[Hashable, int]:
    """Map the ids of a section to their positions."""
    if not entries:
        raise LongTailError(
            f"{source}: '{section}' is empty, expected at least one entry"
        )
    for i, entry in enumerate(entries):
        has_id = isinstance(entry, dict) and isinstance(
            entry.get('id'), (int, str)
        )
        if not has_id:
            raise LongTailError(
                f"{source}: {section}[{i}] has no 'id' that is a whole number "
                'or a string'
            )
    ids = [entry['id'] for entry in entries]
    positions = {identity: i for i, identity in enumerate(ids)}
    if len(positions) < len(ids):
        ((twice, times),) = Counter(ids).most_common(1)
        raise LongTailError(
            f"{source}: '{section}' has the id {twice!r} {times} times, "
            'expected each id once'
        )
    return positions


def _category_names(categories: list, source: str) -> tuple[str, ...]:
    for category in categories:
        if not isinstance(category.get('name'), str):
            raise LongTailError(
                f'{source}: the category with id {category["id"]!r} has no '
                "'name' that is a string"
            )
    return tuple(category['name'] for category in categories)


def _check_annotation(
    annotation: Any,
    label_of: Mapping[Hashable, int],
    image_of: Mapping[Hashable, int],
    place: str,
) -> None:
    for key in ('category_id', 'image_id', 'bbox'):
        if not isinstance(annotation, dict) or key not in annotation:
            raise LongTailError(f"{place} has no '{key}'") from None
    for key, section, positions in (
        ('category_id', 'categories', label_of),
        ('image_id', 'images', image_of),
    ):
        value = annotation[key]
        if not isinstance(value, Hashable) or value not in positions:
            raise LongTailError(
                f"{place} has {key} {value!r}, but no entry of '{section}' "
                'has this id'
            ) from None
    box = annotation['bbox']
    if not (
        isinstance(box, list)
        and len(box) == 4
        and all(isinstance(value, (int, float)) for value in box)
    ):
        raise LongTailError(
            f'{place} has bbox {box!r}, expected four numbers [x, y, width, '
            'height]'
        ) from None


def _metainfo_classes(dataset: Any) -> tuple[str, ...]:
    classes = dataset.metainfo.get('classes')
    if not classes or isinstance(classes, str):
        raise LongTailError(
            f'{type(dataset).__name__}: metainfo.classes is {classes!r}, '
            'expected the class names'
        )
    return tuple(classes)

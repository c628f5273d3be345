"""COCO and LVIS annotation files, and the boxes behind a dataset."""

import copy
import dataclasses
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np

from mmdet_longtail.errors import LongTailError, check, errors_of
from mmdet_longtail.utils.class_names import check_same_classes
from mmdet_longtail.utils.fileio import read_json

# Category ids of an image in LVIS: checked and absent; present, but not all
# of their objects are annotated.
FEDERATED_KEYS = ('neg_category_ids', 'not_exhaustive_category_ids')
# The labels that they lead to, in an image's metainfo.
IMAGE_LEVEL_KEYS = ('present_labels', 'absent_labels')
COCO_URL = 'http://images.cocodataset.org/'


@dataclass(frozen=True, eq=False, repr=False)
class Annotations:
    """Class and image of each of N counted boxes of C classes."""

    source: str  # where the boxes were read
    class_names: tuple[str, ...]  # (C,), position is the label
    category_ids: tuple[Hashable, ...]  # (C,), as in the file
    num_images: int  # annotated or not
    image_index: np.ndarray  # (N,) int64 in [0, num_images)
    class_index: np.ndarray  # (N,) int64 in [0, C)
    degenerate: np.ndarray  # (N,) bool, boxes of zero or negative size

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
        label_of = {c: label for label, c in enumerate(category_ids)}
        new_label = [label_of.get(c, -1) for c in self.category_ids]
        class_index = np.array(new_label)[self.class_index]
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
    """Return the path of an image entry, relative to the folder of all images.

    LVIS v1 has no file name, only a URL.
    """
    url = image.get('coco_url', '')
    return image.get('file_name', url.replace(COCO_URL, ''))


def parse_annotations(content: Any, source: str) -> Annotations:
    """Validate the JSON content of a COCO or LVIS file and return its boxes.

    Raises:
        LongTailError: If something is missing or inconsistent.
    """
    with errors_of(source):
        categories = _section(content, 'categories')
        images = _section(content, 'images')
        annotations = _section(content, 'annotations')
        label_of = _positions(categories, 'categories')
        image_of = _positions(images, 'images')
        for category in categories:
            check(
                isinstance(category.get('name'), str),
                f'the category with id {category["id"]!r} has no '
                "'name' that is a string",
            )
        try:
            image = [image_of[a['image_id']] for a in annotations]
            label = [label_of[a['category_id']] for a in annotations]
            boxes = (a['bbox'] for a in annotations)
            degenerate = [not (w > 0 and h > 0) for _, _, w, h in boxes]
        except (KeyError, TypeError, ValueError):
            # Only here, as it takes longer than the reading.
            for i, annotation in enumerate(annotations):
                place = f'annotations[{i}]'
                _check_annotation(annotation, label_of, image_of, place)
            raise
    counted = [not (a.get('iscrowd') or a.get('ignore')) for a in annotations]
    return Annotations(
        source=source,
        class_names=tuple(category['name'] for category in categories),
        category_ids=tuple(label_of),
        num_images=len(images),
        image_index=np.array([*compress(image, counted)], np.int64),
        class_index=np.array([*compress(label, counted)], np.int64),
        degenerate=np.array([*compress(degenerate, counted)], bool),
    )


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


def read_dataset(dataset: Any) -> Annotations:
    """Read the boxes behind a dataset of mmdet or mmpretrain, not wrapped.

    Raises:
        LongTailError: If they are missing, or contradict the class names.
    """
    from mmdet.datasets import CocoDataset, CocoPanopticDataset

    if isinstance(dataset, CocoDataset) and not isinstance(
        dataset, CocoPanopticDataset
    ):
        return _read_coco_dataset(dataset)
    return _read_labels(dataset)


def _read_coco_dataset(dataset: Any) -> Annotations:
    """Read the file behind a CocoDataset, in the dataset's label order."""
    from mmengine.fileio import get_local_path

    dataset.full_init()
    source = str(dataset.ann_file)
    backend = dataset.backend_args
    with get_local_path(source, backend_args=backend) as local_path:
        annotations = parse_annotations(read_json(local_path), source)
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
    return annotations.select(dataset.cat_ids, found)


def _read_labels(dataset: Any) -> Annotations:
    """Read a dataset that has no COCO file, image by image."""
    if getattr(dataset, 'filter_cfg', None) is not None:
        dataset = copy.copy(dataset)
        dataset.filter_cfg = None
        dataset._fully_initialized = False
    dataset.full_init()
    kind = type(dataset).__name__
    source = str(getattr(dataset, 'ann_file', '') or kind)
    # One label per image in mmpretrain's datasets.
    is_labeled = hasattr(dataset, 'get_gt_labels')
    key = 'gt_label' if is_labeled else 'instances'
    names = _metainfo_classes(dataset)
    boxes = []  # image, label, whether it is degenerate
    for image in range(len(dataset)):
        info = dataset.get_data_info(image)
        try:
            if is_labeled:
                boxes.append((image, int(info[key]), False))
                continue
            for instance in info[key]:
                if not instance.get('ignore_flag', 0):
                    x1, y1, x2, y2 = instance['bbox']
                    degenerate = not (x2 > x1 and y2 > y1)
                    boxes.append((image, instance['bbox_label'], degenerate))
        except (KeyError, TypeError, ValueError):
            raise LongTailError(
                f'{source}: {kind} gives no usable {key!r} for image {image}, '
                'so its classes cannot be counted; give ClassStatisticsHook a '
                'class_statistics file'
            ) from None
    columns = np.array(boxes, dtype=np.int64).reshape(-1, 3).T
    for label in {*columns[1].tolist()} - {*range(len(names))}:
        raise LongTailError(
            f'{source}: a box or image has the label {label}, but the '
            f"dataset's metainfo has {len(names)} classes"
        )
    return Annotations(
        source=source,
        class_names=names,
        category_ids=tuple(range(len(names))),
        num_images=len(dataset),
        image_index=columns[0],
        class_index=columns[1],
        degenerate=columns[2].astype(bool),
    )


def _metainfo_classes(dataset: Any) -> tuple[str, ...]:
    classes = dataset.metainfo.get('classes')
    check(
        classes and not isinstance(classes, str),
        f'{type(dataset).__name__}: metainfo.classes is {classes!r}, expected '
        'the class names',
    )
    return tuple(classes)


def _section(content: Any, key: str) -> list:
    """Return a list of the file."""
    check(
        isinstance(content, dict),
        'expected a JSON object with categories, images and annotations, '
        f'found a {type(content).__name__}',
    )
    check(
        isinstance(content.get(key), list),
        f"the list '{key}' is missing, found "
        f'{", ".join(map(repr, content)) or "nothing"}; expected COCO or '
        'LVIS annotations of a training set',
    )
    return content[key]


def _positions(entries: list, section: str) -> dict[Hashable, int]:
    """Map the ids of a section to their positions."""
    check(entries, f"'{section}' is empty, expected at least one entry")
    positions: dict[Hashable, int] = {}
    for i, entry in enumerate(entries):
        check(
            isinstance(entry, dict) and isinstance(entry.get('id'), int | str),
            f"{section}[{i}] has no 'id' that is a whole number or a string",
        )
        positions[entry['id']] = i
    ((most, times),) = Counter(e['id'] for e in entries).most_common(1)
    check(
        times == 1,
        f"'{section}' has the id {most!r} {times} times, expected each id "
        'once',
    )
    return positions


def _check_annotation(
    annotation: Any,
    label_of: Mapping[Hashable, int],
    image_of: Mapping[Hashable, int],
    place: str,
) -> None:
    for key in ('category_id', 'image_id', 'bbox'):
        if not isinstance(annotation, dict) or key not in annotation:
            raise LongTailError(f"{place} has no '{key}'")
    for key, section, positions in (
        ('category_id', 'categories', label_of),
        ('image_id', 'images', image_of),
    ):
        value = annotation[key]
        check(
            isinstance(value, Hashable) and value in positions,
            f"{place} has {key} {value!r}, but no entry of '{section}' has "
            'this id',
        )
    box = annotation['bbox']
    check(
        isinstance(box, list)
        and len(box) == 4
        and all(isinstance(value, int | float) for value in box),
        f'{place} has bbox {box!r}, expected four numbers [x, y, width, '
        'height]',
    )

"""The annotations of a validation set."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from pycocotools import mask as mask_utils

from mmdet_longtail.errors import LongTailError, check
from mmdet_longtail.structures.annotation_faults import (
    check_evaluation,
    drawn_polygons,
)
from mmdet_longtail.structures.annotations import (
    FEDERATED_KEYS,
    parse_annotations,
)
from mmdet_longtail.utils.class_names import check_same_classes
from mmdet_longtail.utils.fileio import read_json


def read_ground_truth(
    path: str, iou_types: Sequence[str], source: str | None = None
) -> dict:
    """Load the annotations of a validation set by `prepare_ground_truth`.

    Args:
        path (str): A COCO or LVIS annotation file on the local disk.
        iou_types (Sequence[str]): 'bbox', 'segm': the annotations must have
            what these need. A test set, with none, may have no annotations.
        source (str, optional): The name of the file in messages.

    Raises:
        LongTailError: The file is missing, broken or inconsistent.
    """
    source = source or path
    dataset = read_json(path)
    if not iou_types and isinstance(dataset, dict):
        dataset.setdefault('annotations', [])
    parse_annotations(dataset, source)
    needed = {'area', 'segmentation'} if 'segm' in iou_types else {'area'}
    for i, annotation in enumerate(dataset['annotations']):
        for key in sorted(needed - annotation.keys()):
            raise LongTailError(
                f"{source}: annotations[{i}] has no '{key}', which the "
                f'evaluation of {" and ".join(iou_types)} needs'
            )
    prepare_ground_truth(dataset, source, 'segm' in iou_types)
    return dataset


def prepare_ground_truth(
    dataset: dict, source: str, needs_masks: bool
) -> None:
    """Validate and convert annotations for the evaluators, in place.

    Annotations are renumbered from 1: both evaluators take a match with the
    id 0 for no match. Polygons of fewer than three points are left out.

    Args:
        dataset (dict): The content of a parsed COCO or LVIS annotation file.
        source (str): The name of the file in messages.
        needs_masks (bool): Whether masks are evaluated.

    Raises:
        LongTailError: Naming the first annotation that cannot be evaluated.
    """
    check_evaluation(dataset, source, needs_masks)
    for number, annotation in enumerate(dataset['annotations'], 1):
        annotation['id'] = number
        if needs_masks and isinstance(annotation['segmentation'], list):
            # Both evaluators draw the same polygons as mmdet.
            annotation['segmentation'] = drawn_polygons(
                annotation['segmentation']
            )


class GroundTruth:
    """A validation set, with images and classes as positions.

    Images are in the order of their ids, like in the evaluators. Classes are
    in label order: mmdet's labels follow the order of the file, whatever the
    order of ``classes``. Annotations of other classes are dropped.

    Args:
        dataset (dict): The content of a COCO or LVIS annotation file, from
            `read_ground_truth`.
        source (str): Its path, for messages.
        rules (str, optional): 'lvis' or 'coco', whose evaluation rules apply.
            None is LVIS's for a federated set: its images list the classes
            that they were checked for.
        classes (Sequence[str], optional): The C classes of the dataset; None
            selects all of the file. A file may spell a class in another way
            than mmdet (LVIS does), if the numbers of classes agree.

    Attributes:
        categories (list[dict]): The C categories in label order.
        class_names (list[str]): Their names, in the spelling of the file.
        category_ids (list[Hashable]): Their ids in the file.
        image_ids (list[Hashable]): The I image ids, sorted.
        annotations (list[dict]): The m annotations of these classes.
        image, label (np.ndarray): (m,) int64, positions of their image and
            class.

    Raises:
        LongTailError: The file has other classes, or another order; or LVIS's
            rules do not apply to an image.
    """

    def __init__(
        self,
        dataset: dict,
        source: str,
        rules: str | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        self.dataset = dataset
        self.source = source
        self.images = sorted(dataset['images'], key=lambda image: image['id'])
        is_federated = any(FEDERATED_KEYS[0] in i for i in self.images)
        self.rules = rules or ('lvis' if is_federated else 'coco')
        for image in self.images if self.rules == 'lvis' else ():
            for key in FEDERATED_KEYS:
                check(
                    isinstance(image.get(key), list),
                    f"{source}: image {image['id']} has no '{key}' that is a "
                    "list, which LVIS's rules need; "
                    "annotation_format='coco' evaluates by COCO's rules",
                )
        self.categories = _find_categories(dataset, source, classes)
        self.class_names = [c['name'] for c in self.categories]
        self.category_ids = [c['id'] for c in self.categories]
        self.num_classes = len(self.categories)
        self.label_of = {id: k for k, id in enumerate(self.category_ids)}
        self.image_ids = [image['id'] for image in self.images]
        self.image_of = {id: i for i, id in enumerate(self.image_ids)}
        annotations = dataset['annotations']
        self.annotations = [
            a for a in annotations if a['category_id'] in self.label_of
        ]
        image = [self.image_of[a['image_id']] for a in self.annotations]
        label = [self.label_of[a['category_id']] for a in self.annotations]
        self.image = np.array(image, np.int64)
        self.label = np.array(label, np.int64)

    @classmethod
    def load(
        cls,
        path: str,
        iou_types: Sequence[str] = ('bbox',),
        rules: str | None = None,
        source: str | None = None,
    ) -> 'GroundTruth':
        """Load a COCO or LVIS annotation file; see `read_ground_truth`."""
        dataset = read_ground_truth(path, iou_types, source)
        return cls(dataset, source or path, rules)

    def with_classes(self, classes: Sequence[str] | None) -> 'GroundTruth':
        """Return the validation set of the given classes."""
        return GroundTruth(self.dataset, self.source, self.rules, classes)

    @cached_property
    def is_ignored(self) -> np.ndarray:
        """Whether the evaluator ignores each annotation (m,) bool.

        By LVIS's rules 'ignore' decides, by COCO's 'iscrowd'.
        """
        key = 'ignore' if self.rules == 'lvis' else 'iscrowd'
        return np.array([a.get(key) or 0 for a in self.annotations], bool)

    @cached_property
    def box(self) -> np.ndarray:
        """Boxes of the annotations (m, 4): x, y, width, height in pixels."""
        return self.column('bbox').reshape(-1, 4)

    def column(self, key: str) -> np.ndarray:
        """Return a numeric field of the annotations (m,) or (m, ...), or 0."""
        return np.array([a.get(key, 0) for a in self.annotations], np.float64)

    def mask(self, row: int) -> dict[str, Any]:
        """Return the run-length encoding of one annotation's mask."""
        segmentation = self.annotations[row]['segmentation']
        image = self.images[self.image[row]]
        size = image['height'], image['width']
        if isinstance(segmentation, list):  # polygons
            parts = mask_utils.frPyObjects(segmentation, *size)
            return mask_utils.merge(parts)
        if isinstance(segmentation['counts'], list):
            return mask_utils.frPyObjects(segmentation, *size)
        return segmentation


def _find_categories(
    dataset: dict, source: str, classes: Sequence[str] | None
) -> list[dict]:
    """Return the categories of the classes, in label order."""
    categories = dataset['categories']
    if classes is None:
        return categories
    if len(categories) != len(classes):
        wanted = {*classes}
        categories = [c for c in categories if c['name'] in wanted]
    names = [category['name'] for category in categories]
    known = {*names}
    missing = next((n for n in classes if n not in known), None)
    check(
        len(names) == len(classes),
        f'{source}: has {len(names)} of the {len(classes)} classes of the '
        f'dataset, {missing!r} is not among its categories; correct '
        'num_classes and metainfo.classes, or take the right file',
    )
    check_same_classes(
        classes,
        names,
        "the dataset's metainfo",
        source,
        way_out='put metainfo.classes into the order of the file',
        may_rename=True,
    )
    return categories

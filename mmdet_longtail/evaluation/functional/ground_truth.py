from collections.abc import Sequence

import numpy as np
from mmengine.fileio import get_local_path

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.structures.annotations import (
    FEDERATED_KEYS,
    parse_annotations,
)
from mmdet_longtail.utils.class_names import check_same_classes
from mmdet_longtail.utils.fileio import read_json


def read_ground_truth(
    ann_file: str,
    iou_types: Sequence[str],
    backend_args: dict | None = None,
) -> dict:
    """Read the annotations of a validation set and check them.

    Annotations are numbered anew from 1: both evaluators take a match with
    the id 0 for no match.

    Args:
        ann_file (str): A COCO or LVIS annotation file.
        iou_types (Sequence[str]): What the annotations must have: 'bbox',
            'segm'. Empty for a test set: it may have no annotations.
        backend_args (dict, optional): mmengine's file back end.

    Returns:
        dict: The content of the file.

    Raises:
        LongTailError: The file is missing, broken or inconsistent.
    """
    with get_local_path(ann_file, backend_args=backend_args) as local_path:
        dataset = read_json(local_path)
    if not iou_types and isinstance(dataset, dict):
        dataset.setdefault('annotations', [])
    parse_annotations(dataset, ann_file)
    needed = ['area', 'segmentation'] if 'segm' in iou_types else ['area']
    for i, annotation in enumerate(dataset['annotations']):
        for key in needed:
            if key not in annotation:
                raise LongTailError(
                    f"{ann_file}: annotations[{i}] has no '{key}', which "
                    f'the evaluation of {" and ".join(iou_types)} needs'
                )
        annotation['id'] = i + 1
    return dataset


def find_annotation_format(dataset: dict) -> str:
    """Say by whose rules annotations are to be evaluated.

    Args:
        dataset (dict): The content of a COCO or LVIS annotation file.

    Returns:
        str: 'lvis' when an image says which classes it was checked for, else
        'coco'.
    """
    federated = any(FEDERATED_KEYS[0] in image for image in dataset['images'])
    return 'lvis' if federated else 'coco'


def check_federated(dataset: dict, ann_file: str) -> None:
    """Check that every image can be evaluated by LVIS's rules.

    Args:
        dataset (dict): The content of an annotation file.
        ann_file (str): Its path, for the message.

    Raises:
        LongTailError: An image does not say which classes it was checked for.
    """
    for image in dataset['images']:
        for key in FEDERATED_KEYS:
            if key not in image:
                raise LongTailError(
                    f"{ann_file}: image {image['id']} has no '{key}', which "
                    "LVIS's rules need; annotation_format='coco' evaluates "
                    "by COCO's rules"
                )


def label_categories(
    dataset: dict, ann_file: str, classes: Sequence[str] | None
) -> list[dict]:
    """Give the categories in label order.

    mmdet's labels follow the order of the file, whatever the order of
    ``classes``. A file may spell a class in another way than mmdet does
    (LVIS does), as long as it has as many.

    Args:
        dataset (dict): The content of an annotation file.
        ann_file (str): Its path, for messages.
        classes (Sequence[str], optional): The classes of the data set; None
            is all that the file has.

    Returns:
        list[dict]: The C categories of the classes.

    Raises:
        LongTailError: The file has other classes, or another order.
    """
    categories = dataset['categories']
    if classes is None:
        return categories
    known = set(classes)
    if len(categories) != len(classes):
        categories = [c for c in categories if c['name'] in known]
    names = [category['name'] for category in categories]
    if len(names) != len(classes):
        missing = next((n for n in classes if n not in set(names)), None)
        raise LongTailError(
            f'{ann_file}: has {len(names)} of the {len(classes)} classes of '
            f'the data set, {missing!r} is not among its categories; correct '
            'num_classes and metainfo.classes, or take the right file'
        )
    check_same_classes(
        classes,
        names,
        "the dataset's metainfo",
        ann_file,
        way_out='put metainfo.classes into the order of the file',
        may_rename=True,
    )
    return categories


class GroundTruth:
    """A validation set: its images and classes by position, not by id.

    Images are in the order of their ids, as the evaluators walk them;
    classes are in label order. Annotations of other classes are left out.

    Args:
        dataset (dict): The content of a COCO or LVIS annotation file, from
            `read_ground_truth`.
        source (str): Its path, for messages.
        rules (str): 'lvis' or 'coco'.
        classes (Sequence[str], optional): See `label_categories`.

    Attributes:
        categories (list[dict]): The C categories in label order.
        image_ids (list[Hashable]): The I image ids, sorted.
        annotations (list[dict]): The n annotations of these classes.
        image, label (np.ndarray): (n,) int64, positions of their image and
            class.

    Raises:
        LongTailError: See `label_categories` and `check_federated`.
    """

    def __init__(
        self,
        dataset: dict,
        source: str,
        rules: str,
        classes: Sequence[str] | None = None,
    ) -> None:
        if rules == 'lvis':
            check_federated(dataset, source)
        self.dataset = dataset
        self.source = source
        self.rules = rules
        self.categories = label_categories(dataset, source, classes)
        self.label_of = {c['id']: k for k, c in enumerate(self.categories)}
        self.images = sorted(dataset['images'], key=lambda image: image['id'])
        self.image_ids = [image['id'] for image in self.images]
        self.image_of = {id: i for i, id in enumerate(self.image_ids)}
        self.annotations = [
            annotation
            for annotation in dataset['annotations']
            if annotation['category_id'] in self.label_of
        ]
        self.image = np.array(
            [self.image_of[a['image_id']] for a in self.annotations], np.int64
        )
        self.label = np.array(
            [self.label_of[a['category_id']] for a in self.annotations],
            np.int64,
        )

    @classmethod
    def load(
        cls,
        path: str,
        iou_types: Sequence[str] = ('bbox',),
        annotation_format: str | None = None,
    ) -> 'GroundTruth':
        """Read a COCO or LVIS annotation file; its categories give labels.

        Args:
            path (str): JSON on the local disk.
            iou_types (Sequence[str]): See `read_ground_truth`.
            annotation_format (str, optional): 'lvis' or 'coco'. None looks
                at the file.

        Raises:
            LongTailError: If the file is missing, broken or inconsistent.
        """
        dataset = read_ground_truth(path, iou_types)
        rules = annotation_format or find_annotation_format(dataset)
        return cls(dataset, path, rules)

    @property
    def class_names(self) -> list[str]:
        """Names of the C classes, as the file spells them."""
        return [category['name'] for category in self.categories]

    @property
    def category_ids(self) -> list:
        """Ids of the C classes in the file, in label order."""
        return [category['id'] for category in self.categories]

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.categories)

    def column(self, key: str, default: float = 0) -> np.ndarray:
        """Give one numeric field of the annotations (n,) or (n, ...)."""
        values = [a.get(key, default) for a in self.annotations]
        return np.array(values, np.float64)

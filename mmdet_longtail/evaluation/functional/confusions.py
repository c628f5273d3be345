"""What became of each object: found, confused, or taken for background."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from pycocotools import mask as mask_utils

from mmdet_longtail.evaluation.functional.back_ends import coco_in_memory
from mmdet_longtail.evaluation.functional.detections import Detections
from mmdet_longtail.evaluation.functional.ground_truth import GroundTruth

BACKGROUND = -1
NOT_COUNTED = -2


def seen_as(
    ground_truth: GroundTruth,
    detections: Detections,
    iou_type: str,
    iou_threshold: float = 0.5,
) -> np.ndarray:
    """Say which class a detector takes each object for.

    That is the class of the best-scored detection that covers the object, of
    whatever class. Crowds and ignored objects are not counted.

    Args:
        ground_truth (GroundTruth): The validation set, with n objects.
        detections (Detections): What was found in it.
        iou_type (str): 'bbox' or 'segm'.
        iou_threshold (float): The overlap from which a detection covers an
            object.

    Returns:
        np.ndarray: (n,) int64 in [0, C), `BACKGROUND` where no detection
        covers the object, `NOT_COUNTED` for crowds.
    """
    label = np.full(len(ground_truth.annotations), BACKGROUND)
    for objects, rows, iou in _overlaps(ground_truth, detections, iou_type):
        score = np.where(
            iou >= iou_threshold, detections.score[rows, None], -np.inf
        )
        best = score.argmax(0)  # (G,)
        is_covered = np.isfinite(score.max(0))
        label[objects[is_covered]] = detections.label[rows[best[is_covered]]]
    is_ignored = [
        bool(a.get('iscrowd') or a.get('ignore'))
        for a in ground_truth.annotations
    ]
    label[np.array(is_ignored, bool)] = NOT_COUNTED
    return label


def on_another_class(
    ground_truth: GroundTruth,
    detections: Detections,
    iou_type: str,
    iou_threshold: float = 0.5,
) -> np.ndarray:
    """Tell which detections lie on an object of another class.

    Args:
        ground_truth (GroundTruth): The validation set.
        detections (Detections): n that were found in it.
        iou_type (str): 'bbox' or 'segm'.
        iou_threshold (float): The overlap from which one lies on an object.

    Returns:
        np.ndarray: (n,) bool, whether the object that a detection overlaps
        most is of another class.
    """
    is_on_another = np.zeros(len(detections), bool)
    for objects, rows, iou in _overlaps(ground_truth, detections, iou_type):
        label = ground_truth.label[objects[iou.argmax(1)]]  # (D,)
        is_on_another[rows] = (iou.max(1) >= iou_threshold) & (
            label != detections.label[rows]
        )
    return is_on_another


def confusions(
    label: np.ndarray, taken_for: np.ndarray, num_classes: int, top: int = 3
) -> list[list[tuple[int, int]]]:
    """List the classes that each class is most often taken for.

    Args:
        label (np.ndarray): (n,) class of each object.
        taken_for (np.ndarray): (n,) what `seen_as` gives.
        num_classes (int): C.
        top (int): How many to list of each class.

    Returns:
        list[list[tuple[int, int]]]: For each class (other class, objects),
        the most objects first.
    """
    pairs: list[Counter] = [Counter() for _ in range(num_classes)]
    is_confused = (taken_for >= 0) & (taken_for != label)
    for own, other in zip(label[is_confused], taken_for[is_confused]):
        pairs[own][int(other)] += 1
    return [counter.most_common(top) for counter in pairs]


def _overlaps(
    ground_truth: GroundTruth, detections: Detections, iou_type: str
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Give objects (G,), detections (D,) and IoU (D, G) of each image."""
    detections_of = _rows_by_image(detections.image)
    truth = coco_in_memory(ground_truth.dataset)
    for image, objects in _rows_by_image(ground_truth.image).items():
        rows = detections_of.get(image)
        if rows is None:
            continue
        annotations = [ground_truth.annotations[k] for k in objects.tolist()]
        found: Any = detections.box[rows]
        wanted: Any = np.array([a['bbox'] for a in annotations], np.float64)
        if iou_type == 'segm':
            assert detections.masks is not None
            found = [detections.masks[row] for row in rows.tolist()]
            wanted = [truth.annToRLE(a) for a in annotations]
        iou = mask_utils.iou(found, wanted, [0] * len(objects))
        yield objects, rows, iou


def _rows_by_image(image: np.ndarray) -> dict[int, np.ndarray]:
    """Give the rows (k,) of each image that has any."""
    if not len(image):
        return {}
    order = np.argsort(image, kind='stable')
    starts = np.flatnonzero(np.diff(image[order])) + 1
    return {int(image[rows[0]]): rows for rows in np.split(order, starts)}

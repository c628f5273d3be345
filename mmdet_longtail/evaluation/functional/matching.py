"""Matches between detections and objects, within and across classes.

`match_detections` matches within each class as the evaluators do. It serves
the bootstrap, the pictures of detections, and the report's counts of found
objects. `predicted_labels` and `is_classification_error` compare the labels
of overlapping detections and objects. They serve the table of classes, the
report's answers, and ``--without-confusions``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as mask_utils

from mmdet_longtail.evaluation.functional.back_ends import (
    IOU_THRESHOLDS,
    hotcoco_evaluation,
    lvis_evaluation,
)
from mmdet_longtail.evaluation.functional.detections import (
    UNLIMITED,
    EvaluationSpec,
)

BACKGROUND = -1
IGNORED = -2
HOTCOCO_KEYS = 'dtIds dtMatched dtIgnore gtIds gtMatched gtIgnore'.split()
LVIS_KEYS = 'dt_ids dt_matches dt_ignore gt_ids gt_matches gt_ignore'.split()


@dataclass(frozen=True, eq=False)
class Matches:
    """Matches of n detections with m objects at T IoU thresholds.

    All are False where a detection or object is ignored or not evaluated.
    """

    spec: EvaluationSpec
    is_true: np.ndarray  # (n, T) bool, true positives
    is_false: np.ndarray  # (n, T) bool, false positives
    is_found: np.ndarray  # (m, T) bool per annotation
    is_missed: np.ndarray  # (m, T) bool per annotation


def match_detections(
    spec: EvaluationSpec,
    iou_thresholds: Sequence[float] | np.ndarray = IOU_THRESHOLDS,
    images: Sequence[int] | None = None,
) -> Matches:
    """Match detections with objects of their class, the best score first.

    ``images`` are the positions of the images to match; None matches all.
    """
    truth, detections = spec.ground_truth, spec.detections
    objects, rows = spec.evaluated_subset(images)
    if truth.has_ignored:
        # LVISResults numbers detections image by image.
        rows = rows[np.argsort(detections.image[rows], kind='stable')]
        subset = EvaluationSpec(truth, detections.take(rows), UNLIMITED)
        evaluation, keys = lvis_evaluation(subset), LVIS_KEYS
        objects = np.zeros(len(truth.dataset['annotations']), np.int64)
        rows_of = [annotation['id'] - 1 for annotation in truth.annotations]
        objects[rows_of] = np.arange(len(rows_of))
        image_ids = truth.image_ids
    else:
        evaluation = hotcoco_evaluation(spec, objects, rows)
        keys = HOTCOCO_KEYS
        image_ids = list(range(1, len(truth.images) + 1))
    parameters = evaluation.params
    parameters.iou_thrs = list(iou_thresholds)
    parameters.area_rng = parameters.area_rng[:1]
    parameters.area_rng_lbl = parameters.area_rng_lbl[:1]
    if images is not None:
        parameters.img_ids = [image_ids[image] for image in images]
    evaluation.evaluate()
    T = len(iou_thresholds)
    is_true, is_false = np.zeros((2, len(detections), T), bool)
    is_found, is_missed = np.zeros((2, len(truth.annotations), T), bool)
    # One pair per image and class.
    for pair in filter(None, evaluation.eval_imgs):
        for (ids, matched, ignored), of_id, hit, miss in (
            (keys[:3], rows, is_true, is_false),
            (keys[3:], objects, is_found, is_missed),
        ):
            place = of_id[np.array(pair[ids], np.int64) - 1]
            is_match = np.array(pair[matched], bool).reshape(T, -1).T
            # (k,) of objects, (T, k) of detections.
            is_counted = np.atleast_2d(~np.array(pair[ignored], bool)).T
            hit[place] = is_match & is_counted
            miss[place] = ~is_match & is_counted
    return Matches(spec, is_true, is_false, is_found, is_missed)


def predicted_labels(
    spec: EvaluationSpec, iou_threshold: float = 0.5
) -> np.ndarray:
    """Return the label of the best-scored detection that covers each object.

    Returns:
        np.ndarray: (m,) int64 in [0, C), `BACKGROUND` where no detection
        covers the object, `IGNORED` for crowds and ignored objects.
    """
    truth, detections = spec.ground_truth, spec.detections
    predicted = np.full(len(truth.annotations), BACKGROUND)
    for objects, rows, iou in overlaps(spec):
        covers = iou >= iou_threshold
        score = np.where(covers, detections.score[rows, None], -np.inf)
        best = rows[score.argmax(0)]  # (G,)
        is_covered = np.isfinite(score.max(0))
        predicted[objects[is_covered]] = detections.label[best[is_covered]]
    is_ignored = (truth.column('iscrowd') != 0) | (truth.column('ignore') != 0)
    predicted[is_ignored] = IGNORED
    return predicted


def is_classification_error(
    spec: EvaluationSpec, iou_threshold: float = 0.5
) -> np.ndarray:
    """Return whether each detection covers an object of another class (n,).

    The covered object is the one with the largest overlap.

    Source: Bolya et al., TIDE, ECCV 2020, classification errors.
    """
    truth, detections = spec.ground_truth, spec.detections
    is_error = np.zeros(len(detections), bool)
    for objects, rows, iou in overlaps(spec):
        label = truth.label[objects[iou.argmax(1)]]  # (D,)
        is_error[rows] = (iou.max(1) >= iou_threshold) & (
            label != detections.label[rows]
        )
    return is_error


def overlaps(
    spec: EvaluationSpec,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Compute objects (G,), detections (D,) and their IoU (D, G) per image."""
    truth, detections = spec.ground_truth, spec.detections
    positions = np.arange(1, len(truth.images))

    def per_image(image: np.ndarray) -> list[np.ndarray]:
        order = np.argsort(image, kind='stable')
        return np.split(order, np.searchsorted(image[order], positions))

    for objects, rows in zip(
        per_image(truth.image), per_image(detections.image), strict=True
    ):
        if not len(objects) or not len(rows):
            continue
        if detections.masks is not None:
            found = detections.masks[rows].tolist()
            wanted = [truth.mask(row) for row in objects.tolist()]
        else:
            found, wanted = detections.box[rows], truth.box[objects]
        yield objects, rows, mask_utils.iou(found, wanted, [0] * len(objects))

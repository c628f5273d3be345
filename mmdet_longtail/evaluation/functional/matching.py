"""Matches between detections and objects, within and across classes.

`match_detections` matches within each class as the evaluators do. It serves
the bootstrap, the pictures of detections, and the report's counts of found
objects. `predicted_labels` and `is_classification_error` compare the labels
of overlapping detections and objects. They serve the table of classes, the
report's answers, and ``--without-confusions``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from pycocotools import mask as mask_utils

from mmdet_longtail.evaluation.functional.back_ends import (
    IOU_THRESHOLDS,
    hotcoco_evaluation,
    lvis_evaluation,
)
from mmdet_longtail.evaluation.functional.detections import (
    UNLIMITED,
    Detections,
    EvaluationSpec,
    best_rows,
)
from mmdet_longtail.evaluation.functional.ground_truth import (
    FEDERATED_KEYS,
    GroundTruth,
)

BACKGROUND = -1
IGNORED = -2
# The best detections usually cover all objects of an image.
DETECTIONS_AT_ONCE = 50
MAX_AREA = 1e10  # of COCO's and LVIS's size range 'all'
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
    T = len(iou_thresholds)
    is_true, is_false = np.zeros((2, len(detections), T), bool)
    is_found, is_missed = np.zeros((2, len(truth.annotations), T), bool)
    objects, rows = spec.evaluated_subset(images)
    # An evaluator visits pairs of an image and a class, one by one. Most
    # detections are in a pair without an object, and need none.
    C = truth.num_classes
    wanted = _pairs(truth, objects, C)
    is_alone = ~np.isin(_pairs(detections, rows, C), wanted)
    alone, rows = rows[is_alone], rows[~is_alone]
    is_false[alone[_is_evaluated(spec, alone)]] = True
    local = _with_local_classes(spec, objects, rows)
    if truth.rules == 'lvis' and local.ground_truth.is_ignored.any():
        # LVISResults numbers detections image by image.
        order = np.argsort(detections.image[rows], kind='stable')
        rows = rows[order]
        found = local.detections.take(order)
        subset = EvaluationSpec(local.ground_truth, found, UNLIMITED)
        evaluation, keys = lvis_evaluation(subset), LVIS_KEYS
    else:
        every = map(np.arange, (len(objects), len(rows)))
        evaluation, keys = hotcoco_evaluation(local, *every), HOTCOCO_KEYS
    parameters = evaluation.params
    parameters.iou_thrs = list(iou_thresholds)
    parameters.area_rng = parameters.area_rng[:1]
    parameters.area_rng_lbl = parameters.area_rng_lbl[:1]
    evaluation.evaluate()
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


def _pairs(
    labeled: GroundTruth | Detections, rows: np.ndarray, num_classes: int
) -> np.ndarray:
    """Number the pairs of an image and a class of some rows."""
    return labeled.image[rows] * num_classes + labeled.label[rows]


def _is_evaluated(spec: EvaluationSpec, rows: np.ndarray) -> np.ndarray:
    """Return which detections count whose class has no object in the image.

    By LVIS's rules the image was checked for the class, and entirely. By
    COCO's the detection is one of the best of its class in the image. Both
    ignore areas out of their range.
    """
    truth, detections = spec.ground_truth, spec.detections.take(rows)
    area = spec.detections.area[rows]
    is_evaluated = (area >= 0) & (area <= MAX_AREA)
    C = truth.num_classes
    pairs = detections.image * C + detections.label
    if truth.rules == 'lvis':
        absent, partly = (
            [
                i * C + truth.label_of[id]
                for i, image in enumerate(truth.images)
                for id in image[key]
                if id in truth.label_of
            ]
            for key in FEDERATED_KEYS
        )
        return is_evaluated & np.isin(pairs, absent) & ~np.isin(pairs, partly)
    _, group = np.unique(pairs, return_inverse=True)
    is_best = np.zeros(len(rows), bool)
    is_best[best_rows(group, detections.score, spec.limit)] = True
    return is_evaluated & is_best


def _with_local_classes(
    spec: EvaluationSpec, objects: np.ndarray, rows: np.ndarray
) -> EvaluationSpec:
    """Select objects and detections, and number the classes per image.

    The classes of an image are those of its objects, from 0. The detections
    are of these classes. An evaluator keeps a list of all pairs of an image
    and a class, which would be long.
    """
    truth, C = spec.ground_truth, spec.ground_truth.num_classes
    of_objects = _pairs(truth, objects, C)
    pairs = np.unique(of_objects)  # (P,)
    starts = np.searchsorted(pairs, C * np.arange(len(truth.images) + 1))
    number = np.arange(len(pairs)) - starts[pairs // C]
    images = []
    for i, image in enumerate(truth.images):
        of_image = (pairs[starts[i] : starts[i + 1]] % C).tolist()
        number_of = {truth.category_ids[k]: j for j, k in enumerate(of_image)}
        listed = {
            key: [number_of[id] for id in image[key] if id in number_of]
            for key in FEDERATED_KEYS
            if truth.rules == 'lvis'
        }
        images.append(image | listed)
    places = np.searchsorted(pairs, of_objects)
    dataset = {
        'images': images,
        'annotations': [
            dict(truth.annotations[row], id=id, category_id=k)
            for id, (row, k) in enumerate(
                zip(objects.tolist(), number[places].tolist()), 1
            )
        ],
        'categories': [
            {'id': k, 'name': f'{k}'}
            for k in range(int(np.diff(starts).max(initial=1)))
        ],
    }
    places = np.searchsorted(pairs, _pairs(spec.detections, rows, C))
    found = replace(spec.detections.take(rows), label=number[places])
    local = GroundTruth(dataset, truth.source, truth.rules)
    return replace(spec, ground_truth=local, detections=found)


def predicted_labels(
    spec: EvaluationSpec, iou_threshold: float = 0.5
) -> np.ndarray:
    """Return the label of the best-scored detection that covers each object.

    Returns:
        np.ndarray: (m,) int64 in [0, C), `BACKGROUND` where no detection
        covers the object, `IGNORED` where the evaluator ignores the object.
    """
    truth, detections = spec.ground_truth, spec.detections
    predicted = np.full(len(truth.annotations), BACKGROUND)
    for objects, rows in _per_image(spec):
        best_first = rows[np.argsort(-detections.score[rows], kind='stable')]
        for start in range(0, len(rows), DETECTIONS_AT_ONCE):
            part = best_first[start : start + DETECTIONS_AT_ONCE]
            covers = _iou(spec, objects, part) >= iou_threshold  # (D, G)
            is_covered = covers.any(0)
            best = part[covers.argmax(0)[is_covered]]
            predicted[objects[is_covered]] = detections.label[best]
            objects = objects[~is_covered]
            if not len(objects):
                break
    predicted[truth.is_ignored] = IGNORED
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
    for objects, rows in _per_image(spec):
        yield objects, rows, _iou(spec, objects, rows)


def _per_image(
    spec: EvaluationSpec,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Select objects (G,) and detections (D,) per image that has both."""
    truth, detections = spec.ground_truth, spec.detections
    positions = np.arange(1, len(truth.images))

    def split(image: np.ndarray) -> list[np.ndarray]:
        order = np.argsort(image, kind='stable')
        return np.split(order, np.searchsorted(image[order], positions))

    for objects, rows in zip(
        split(truth.image), split(detections.image), strict=True
    ):
        if len(objects) and len(rows):
            yield objects, rows


def _iou(
    spec: EvaluationSpec, objects: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """Compute the IoU (D, G) of detections with objects of their image."""
    truth, detections = spec.ground_truth, spec.detections
    if detections.masks is not None:
        found = detections.masks[rows].tolist()
        wanted = [truth.mask(row) for row in objects.tolist()]
    else:
        found, wanted = detections.box[rows], truth.box[objects]
    return mask_utils.iou(found, wanted, [0] * len(objects))

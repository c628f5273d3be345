"""Precision and recall per class, by the rules of LVIS or COCO.

A back end evaluates an `EvaluationSpec` and returns `PrecisionRecall`. `fast`
is hotcoco. `reference` is the evaluator of lvis or pycocotools; both back
ends agree to 1e-9.

Sources: Gupta et al., LVIS, CVPR 2019, and lvis' ``LVISEval``; Lin et al.,
Microsoft COCO, ECCV 2014, and pycocotools' ``COCOeval``.
"""

import logging
from dataclasses import dataclass
from typing import Any

import hotcoco
import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmdet_longtail.compat import import_lvis
from mmdet_longtail.evaluation.functional.detections import EvaluationSpec
from mmdet_longtail.evaluation.functional.ground_truth import (
    FEDERATED_KEYS,
    GroundTruth,
)
from mmdet_longtail.structures.annotations import image_size
from mmdet_longtail.utils.console import quiet

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
AREAS = ('all', 'small', 'medium', 'large')
# hotcoco needs 130 kB per class: precision and scores (T, R, C, A), twice.
CLASSES_AT_ONCE = 2000


@dataclass(frozen=True, eq=False)
class PrecisionRecall:
    """Precision and recall at T IoU thresholds and in A size ranges.

    T are `IOU_THRESHOLDS`, R recall thresholds 0, .01, ... 1, A the object
    sizes `AREAS`. Values are -1 for a class without objects.
    """

    precision: np.ndarray  # (T, R, C, A), interpolated
    recall: np.ndarray  # (T, C, A), share of the objects that are found


def fast(spec: EvaluationSpec) -> PrecisionRecall:
    """Evaluate with hotcoco."""
    truth = spec.ground_truth
    if truth.rules == 'lvis' and truth.is_ignored.any():
        # hotcoco takes no such mark.
        return reference(spec)
    evaluation = hotcoco_evaluation(spec, *spec.evaluated_subset())
    ids = range(1, truth.num_classes + 1)
    parts = []
    for start in range(0, len(ids), CLASSES_AT_ONCE):
        evaluation.params.cat_ids = [*ids[start : start + CLASSES_AT_ONCE]]
        parts.append(_accumulate(evaluation))
    if len(parts) == 1:
        return parts[0]
    return PrecisionRecall(
        np.concatenate([part.precision for part in parts], 2),
        np.concatenate([part.recall for part in parts], 1),
    )


def _accumulate(evaluation: Any) -> PrecisionRecall:
    """Evaluate at one limit of detections, the last axis if there is one."""
    evaluation.evaluate()
    evaluation.accumulate()
    curves = evaluation.eval  # hotcoco makes the arrays at each access.
    precision, recall = curves['precision'], curves['recall']
    return PrecisionRecall(
        precision.reshape(precision.shape[:4]),
        recall.reshape(recall.shape[:3]),
    )


def hotcoco_evaluation(
    spec: EvaluationSpec, objects: np.ndarray, rows: np.ndarray
) -> hotcoco.COCOeval:
    """Build hotcoco's evaluation of rows of annotations and of detections.

    The rows get the ids 1, 2, .... Ids of images and classes are positions
    from 1.
    """
    truth = spec.ground_truth
    detections, area = spec.detections.take(rows), spec.detections.area[rows]
    is_lvis = truth.rules == 'lvis'
    annotations = [truth.annotations[k] for k in objects.tolist()]
    shapes: Any = None
    masks: Any = None
    if detections.masks is not None:
        shapes = [annotation['segmentation'] for annotation in annotations]
        masks = detections.masks.tolist() or None
    loaded = hotcoco.COCO.from_arrays(
        [_numbered(truth, i) for i in range(len(truth.images))],
        [{'id': k, 'name': n} for k, n in enumerate(truth.class_names, 1)],
        truth.image[objects] + 1,
        truth.label[objects] + 1,
        truth.box[objects],
        area=truth.column('area')[objects],
        # LVIS has no crowds: its evaluator ignores the mark.
        iscrowd=truth.column('iscrowd')[objects] * (not is_lvis),
        segmentation=shapes,
    )
    image, label = detections.image + 1, detections.label + 1
    rows = np.column_stack([image, detections.box, detections.score, label])
    found = loaded.load_res(rows, segmentation=masks)
    if masks:
        # load_res takes the area of the box for the area of the mask.
        ids = np.arange(len(masks)) + 1
        found.update_anns(ids=ids, area=area)
    if is_lvis:
        # Else the limit is 300 per image, whatever max_dets is.
        found = found.cap_detections_per_image(None)
    evaluation = hotcoco.COCOeval(
        loaded, found, spec.iou_type, lvis_style=is_lvis
    )
    evaluation.params.max_dets = [spec.limit]
    return evaluation


def _numbered(truth: GroundTruth, position: int) -> dict:
    """Number an image, and the classes that it was checked for."""
    image, label_of = truth.images[position], truth.label_of
    # hotcoco takes whole numbers only; only masks need them.
    sizes = zip(('height', 'width'), image_size(image))
    size = {key: n if type(n) is int and n > 0 else 0 for key, n in sizes}
    checked = {
        key: [label_of[id] + 1 for id in image[key] if id in label_of]
        for key in FEDERATED_KEYS
        if truth.rules == 'lvis'
    }
    return {'id': position + 1} | size | checked


def reference(spec: EvaluationSpec) -> PrecisionRecall:
    """Evaluate with lvis (extra ``[lvis]``) or pycocotools."""
    if spec.ground_truth.rules == 'lvis':
        return _accumulate(lvis_evaluation(spec))
    results = spec.detections.as_results(spec.ground_truth)
    category_ids = spec.ground_truth.category_ids
    with quiet():
        truth = _coco_in_memory(spec.ground_truth.dataset)
        if results:
            found = truth.loadRes(results)
        else:
            found = _coco_in_memory(dict(truth.dataset, annotations=[]))
        evaluation = COCOeval(truth, found, spec.iou_type)
        evaluation.params.catIds = category_ids
        evaluation.params.maxDets = [spec.limit]
        curves = _accumulate(evaluation)
    # COCOeval sorts the categories by id, whatever order it was given.
    columns = np.searchsorted(evaluation.params.catIds, category_ids)
    return PrecisionRecall(
        curves.precision[:, :, columns], curves.recall[:, columns]
    )


def _coco_in_memory(dataset: dict) -> COCO:
    """Build pycocotools' index of the content of an annotation file."""
    # COCOeval writes into the annotations.
    annotations = [{'iscrowd': 0, **a} for a in dataset['annotations']]
    coco = COCO()
    coco.dataset = dict(dataset, annotations=annotations)
    coco.createIndex()
    return coco


def lvis_evaluation(spec: EvaluationSpec) -> Any:
    """Build lvis' evaluation, with the ids of the files.

    lvis itself reads its ground truth from a file, and needs a detection.
    """
    lvis: Any = import_lvis()
    # lvis warns at every evaluation that results are a list, not a file.
    logging.getLogger('lvis.results').setLevel(logging.ERROR)

    class InMemory(lvis.LVIS):
        def _load_json(self, dataset: dict) -> dict:
            # LVISEval writes into the annotations.
            annotations = [dict(a) for a in dataset['annotations']]
            return dict(dataset, annotations=annotations)

    class Evaluation(lvis.LVISEval):
        # Only LVIS's own files name groups.
        def _prepare_freq_group(self) -> list:
            return []

    dataset = spec.ground_truth.dataset
    results = spec.detections.as_results(spec.ground_truth)
    # LVISResults copies all that it is given, down to the polygons.
    unannotated = InMemory(dict(dataset, annotations=[]))
    if results:
        found = lvis.LVISResults(unannotated, results, spec.limit)
    else:
        found = lvis.LVISResults.__new__(lvis.LVISResults)
        vars(found).update(vars(unannotated))
    evaluation = Evaluation(InMemory(dataset), found, spec.iou_type)
    evaluation.params.cat_ids = spec.ground_truth.category_ids
    return evaluation


BACK_ENDS = {'fast': fast, 'reference': reference}

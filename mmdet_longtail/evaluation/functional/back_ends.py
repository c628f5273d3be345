"""Precision and recall of each class, by the rules of LVIS or COCO.

A back end takes a validation set and detections and gives `Curves`. `fast`
is hotcoco; `reference` is lvis' or pycocotools' own evaluator, which it
equals to 1e-9 and better (tests/test_metrics.py).

Sources: Gupta et al., LVIS, CVPR 2019, and lvis' ``LVISEval``; Lin et al.,
Microsoft COCO, ECCV 2014, and pycocotools' ``COCOeval``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import hotcoco
import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmdet_longtail.compat import import_lvis
from mmdet_longtail.evaluation.functional.detections import Detections
from mmdet_longtail.evaluation.functional.ground_truth import GroundTruth
from mmdet_longtail.utils.console import quiet

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
AREAS = ('all', 'small', 'medium', 'large')


@dataclass(frozen=True, eq=False)
class Curves:
    """What is left of an evaluation for its means.

    Args:
        precision (np.ndarray): (T, R, C, A) interpolated precision at T IoU
            thresholds (`IOU_THRESHOLDS`), R recall thresholds 0, .01, ... 1,
            and A ranges of object size (`AREAS`); -1 where a class has no
            object to find.
        recall (np.ndarray): (T, C, A) share of the objects that are found,
            -1 where there are none.
    """

    precision: np.ndarray
    recall: np.ndarray


BackEnd = Callable[[GroundTruth, Detections, str, int], Curves]


def fast(
    ground_truth: GroundTruth,
    detections: Detections,
    iou_type: str,
    max_detections: int,
) -> Curves:
    """Evaluate with hotcoco.

    Args:
        ground_truth (GroundTruth): The validation set.
        detections (Detections): All that were found in it.
        iou_type (str): 'bbox' or 'segm'.
        max_detections (int): The best detections that count: of an image by
            LVIS's rules, of an image and class by COCO's.
    """
    if has_ignored(ground_truth):  # hotcoco takes no such mark.
        return reference(ground_truth, detections, iou_type, max_detections)
    evaluation = hotcoco_evaluation(
        ground_truth, detections, iou_type, max_detections
    )
    evaluation.evaluate()
    evaluation.accumulate()
    result = evaluation.eval
    assert result is not None
    return Curves(result['precision'][..., -1], result['recall'][..., -1])


def what_counts(
    ground_truth: GroundTruth,
    detections: Detections,
    iou_type: str,
    max_detections: int,
) -> tuple[np.ndarray, Detections]:
    """Choose the objects and detections that the rules look at.

    Returns:
        tuple[np.ndarray, Detections]: Rows of ``annotations``, rising, and
        detections. By COCO's rules these are all.
    """
    if ground_truth.rules == 'coco':
        return np.arange(len(ground_truth.annotations)), detections
    # Without a word, lvis leaves out what has no area.
    objects = np.flatnonzero(ground_truth.column('area') > 0)
    detections = detections.best_of_each_image(max_detections)
    has_area = detections.area(iou_type) > 0
    return objects, detections.take(np.flatnonzero(has_area))


def hotcoco_evaluation(
    ground_truth: GroundTruth,
    detections: Detections,
    iou_type: str,
    max_detections: int,
) -> hotcoco.COCOeval:
    """Give hotcoco the data, with ids that are positions from 1."""
    is_lvis = ground_truth.rules == 'lvis'
    is_segm = iou_type == 'segm'
    area = ground_truth.column('area')
    objects, detections = what_counts(
        ground_truth, detections, iou_type, max_detections
    )
    truth = hotcoco.COCO.from_arrays(
        _images(ground_truth),
        [
            {'id': label + 1, 'name': name}
            for label, name in enumerate(ground_truth.class_names)
        ],
        ground_truth.image[objects] + 1,
        ground_truth.label[objects] + 1,
        ground_truth.column('bbox').reshape(-1, 4)[objects],
        area=area[objects],
        # LVIS has no crowds: its evaluator does not look for the mark.
        iscrowd=ground_truth.column('iscrowd')[objects] * (not is_lvis),
        segmentation=[
            ground_truth.annotations[k]['segmentation']
            for k in objects.tolist()
        ]
        if is_segm
        else None,
    )
    rows = np.column_stack(
        [
            detections.image + 1,
            detections.box,
            detections.score,
            detections.label + 1,
        ]
    )
    masks: Any = list(detections.masks or ()) if is_segm else None
    found = truth.load_res(rows, segmentation=masks)
    if masks:
        # load_res takes the area of the box for the area of the mask.
        found.update_anns(
            ids=np.arange(len(masks)) + 1, area=detections.area(iou_type)
        )
    if is_lvis:
        # Else 300 an image, whatever max_dets says.
        found = found.cap_detections_per_image(None)
    evaluation = hotcoco.COCOeval(truth, found, iou_type, lvis_style=is_lvis)
    evaluation.params.max_dets = [max_detections]
    return evaluation


def reference(
    ground_truth: GroundTruth,
    detections: Detections,
    iou_type: str,
    max_detections: int,
) -> Curves:
    """Evaluate with lvis (extra ``[lvis]``) or pycocotools; see `fast`."""
    if ground_truth.rules == 'lvis':
        evaluation = lvis_evaluation(
            ground_truth, detections, iou_type, max_detections
        )
        evaluation.evaluate()
        evaluation.accumulate()
        result = evaluation.eval
        return Curves(result['precision'], result['recall'])
    results = detections.as_results(ground_truth, iou_type)
    category_ids = ground_truth.category_ids
    with quiet():
        truth = coco_in_memory(ground_truth.dataset)
        if results:
            found = truth.loadRes(results)
        else:
            found = coco_in_memory(dict(truth.dataset, annotations=[]))
        evaluation = COCOeval(truth, found, iou_type)
        evaluation.params.catIds = category_ids
        evaluation.params.maxDets = [max_detections]
        evaluation.evaluate()
        evaluation.accumulate()
    result = evaluation.eval
    # COCOeval sorts the categories by id, whatever order it was given.
    column = {id: k for k, id in enumerate(evaluation.params.catIds)}
    columns = [column[id] for id in category_ids]
    return Curves(
        result['precision'][..., -1][:, :, columns],
        result['recall'][..., -1][:, columns],
    )


def lvis_evaluation(
    ground_truth: GroundTruth,
    detections: Detections,
    iou_type: str,
    max_detections: int,
) -> Any:
    """Give lvis the data, with the ids of the files."""
    import_lvis()
    from mmdet_longtail.evaluation.functional.lvis_in_memory import (
        LVISDetections,
        LVISEvaluation,
        LVISInMemory,
    )

    results = detections.as_results(ground_truth, iou_type)
    dataset = ground_truth.dataset
    evaluation = LVISEvaluation(
        LVISInMemory(dataset),
        LVISDetections(dataset, results, max_detections),
        iou_type,
    )
    evaluation.params.cat_ids = ground_truth.category_ids
    return evaluation


BACK_ENDS: dict[str, BackEnd] = {'fast': fast, 'reference': reference}


def coco_in_memory(dataset: dict) -> COCO:
    """Give pycocotools a dataset that is read already.

    Args:
        dataset (dict): The content of a COCO or LVIS annotation file; what
            pycocotools asks of every annotation is filled in.

    Returns:
        COCO: Its index; ``dataset`` is not copied.
    """
    for annotation in dataset['annotations']:
        annotation.setdefault('iscrowd', 0)
    coco = COCO()
    coco.dataset = dataset
    with quiet():
        coco.createIndex()
    return coco


def _images(ground_truth: GroundTruth) -> list[dict]:
    """Number the images and the classes that each was checked for."""
    label_of = ground_truth.label_of
    images = []
    for number, image in enumerate(ground_truth.images):
        numbered = {
            'id': number + 1,
            'width': image.get('width', 0),
            'height': image.get('height', 0),
        }
        if ground_truth.rules == 'lvis':
            for key in ('neg_category_ids', 'not_exhaustive_category_ids'):
                numbered[key] = [
                    label_of[id] + 1 for id in image[key] if id in label_of
                ]
        images.append(numbered)
    return images


def has_ignored(ground_truth: GroundTruth) -> bool:
    """Tell if LVIS's evaluator would find objects marked to be ignored."""
    return ground_truth.rules == 'lvis' and any(
        annotation.get('ignore') for annotation in ground_truth.annotations
    )

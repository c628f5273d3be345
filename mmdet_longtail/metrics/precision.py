"""Precision of each class, as the reference evaluators compute it.

Both functions take the same things and return the same array, so that a
metric chooses between them by name.
"""

import contextlib
import io
from collections.abc import Hashable, Sequence

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)


def lvis_precision(
    ground_truth: COCO,
    detections: list[dict],
    category_ids: Sequence[Hashable],
    iou_type: str,
    max_detections: int,
) -> np.ndarray:
    """Precision by the federated rules of LVIS.

    Detections of a class that an image was not checked for do not count;
    unmatched ones of a class that is not exhaustively annotated in an image
    are ignored there.

    Args:
        ground_truth (COCO): LVIS annotations.
        detections (list[dict]): Detections in COCO's result format.
        category_ids (Sequence[Hashable]): C categories to evaluate.
        iou_type (str): 'bbox' or 'segm'.
        max_detections (int): The best detections of an image that count,
            over all classes together.

    Returns:
        np.ndarray: (T, R, C, A) interpolated precision at T IoU thresholds
        (``IOU_THRESHOLDS``), R recall thresholds and A ranges of object size
        (all, small, medium, large); -1 where a class has no object to find.

    Source: Gupta et al., LVIS, CVPR 2019, and lvis' ``LVISEval``.
    """
    # Here, so that COCO's rules do without lvis.
    from mmdet_longtail.metrics.lvis_in_memory import (
        LVISDetections,
        LVISEvaluation,
        LVISInMemory,
    )

    evaluation = LVISEvaluation(
        LVISInMemory(ground_truth.dataset),
        LVISDetections(ground_truth.dataset, detections, max_detections),
        iou_type,
    )
    evaluation.params.cat_ids = list(category_ids)
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval['precision']


def coco_precision(
    ground_truth: COCO,
    detections: list[dict],
    category_ids: Sequence[Hashable],
    iou_type: str,
    max_detections: int,
) -> np.ndarray:
    """Precision by COCO's rules: every image was checked for every class.

    Args:
        ground_truth (COCO): COCO annotations.
        detections (list[dict]): Detections in COCO's result format.
        category_ids (Sequence[Hashable]): C categories to evaluate.
        iou_type (str): 'bbox' or 'segm'.
        max_detections (int): The best detections of an image and a class
            that count.

    Returns:
        np.ndarray: (T, R, C, A), as in ``lvis_precision``.

    Source: Lin et al., Microsoft COCO, ECCV 2014, and pycocotools'
    ``COCOeval``.
    """
    # pycocotools asks every annotation for it, LVIS files do not have it.
    for annotation in ground_truth.dataset['annotations']:
        annotation.setdefault('iscrowd', 0)
    with contextlib.redirect_stdout(io.StringIO()):
        if detections:
            results = ground_truth.loadRes(detections)
        else:
            results = coco_in_memory(
                dict(ground_truth.dataset, annotations=[])
            )
        evaluation = COCOeval(ground_truth, results, iou_type)
        evaluation.params.catIds = list(category_ids)
        evaluation.params.maxDets = [max_detections]
        evaluation.evaluate()
        evaluation.accumulate()
    # COCOeval sorts the categories by id, whatever order it was given.
    column = {id: k for k, id in enumerate(evaluation.params.catIds)}
    columns = [column[id] for id in category_ids]
    return evaluation.eval['precision'][..., -1][:, :, columns]


def coco_in_memory(dataset: dict) -> COCO:
    """Give pycocotools a dataset that is read already.

    Args:
        dataset (dict): The content of a COCO or LVIS annotation file.

    Returns:
        COCO: Its index; ``dataset`` is not copied.
    """
    coco = COCO()
    coco.dataset = dataset
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def average_precisions(precision: np.ndarray) -> dict[str, np.ndarray]:
    """Average precision of each class.

    Args:
        precision (np.ndarray): (T, R, C, A), from one of the functions above.

    Returns:
        dict[str, np.ndarray]: Under AP (mean over the IoU thresholds), AP50,
        AP75, APs, APm and APl, in this order: (C,) in 0..1, NaN where a class
        has no object to find.
    """
    iou_50 = np.isclose(IOU_THRESHOLDS, 0.5)
    iou_75 = np.isclose(IOU_THRESHOLDS, 0.75)
    everywhere, small, medium, large = np.moveaxis(precision, 3, 0)
    selected = {
        'AP': everywhere,  # (T, R, C)
        'AP50': everywhere[iou_50],
        'AP75': everywhere[iou_75],
        'APs': small,
        'APm': medium,
        'APl': large,
    }
    return {
        name: np.where(
            (values == -1).any(axis=(0, 1)), np.nan, values.mean(axis=(0, 1))
        )
        for name, values in selected.items()
    }


def mean_average_precision(average_precision: np.ndarray) -> float:
    """Mean over the classes that have objects to find.

    Args:
        average_precision (np.ndarray): (C,), NaN for a class without objects.

    Returns:
        float: In 0..1, or -1 when no class has objects, as in both libraries.
    """
    present = average_precision[~np.isnan(average_precision)]
    return float(present.mean()) if len(present) else -1.0

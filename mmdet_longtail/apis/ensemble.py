"""Ensemble of the result files of a detector and of experts."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from hotcoco import mask as mask_utils

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.evaluation.functional import Detections, GroundTruth
from mmdet_longtail.structures.annotations import parse_annotations
from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.utils.class_names import (
    check_counted_classes,
    read_class_map,
)
from mmdet_longtail.utils.fileio import read_json, write_atomic


def ensemble_files(
    main: str,
    experts: Sequence[tuple[str, str, str]],
    ann_file: str,
    out: str,
    *,
    iou_type: str = 'bbox',
    statistics: ClassStatistics | None = None,
    power_of: Mapping[str, float] | None = None,
    nms_iou: float = 0.5,
    max_detections: int = 300,
) -> Detections:
    """Unite the detections of a detector with those of experts.

    Prints the number of detections per file.

    Args:
        main (str): COCO result file of the detector.
        experts (Sequence[tuple]): Per expert: its COCO result file, a file
            for `read_class_map`, and an annotation file with the categories
            of the expert.
        ann_file (str): Annotation file with the images and the categories of
            the detector. Its annotations are not used.
        out (str): Result file to write.
        iou_type (str): 'bbox' or 'segm'.
        statistics (ClassStatistics, optional): Counts of the training set,
            which ``power_of`` needs.
        power_of (Mapping[str, float], optional): Exponent in (0, 1] of the
            detector's scores per frequency group. Other groups keep their
            scores.
        nms_iou (float): IoU threshold of NMS per class.
        max_detections (int): Number of best detections kept per image.

    Raises:
        LongTailError: If a file is missing, broken, or of other images or
            classes, or if scores outside [0, 1] cannot be rescored.
    """
    truth = _read_classes(ann_file)
    found = Detections.load(main, truth, iou_type)
    print(f'{main}: {len(found):,} detections')
    if power_of:
        if statistics is None:
            raise LongTailError(
                '--rescore: groups need counts of the training set; add '
                '--statistics or --train'
            )
        check_counted_classes(truth, statistics)
        for score in found.score[(found.score < 0) | (found.score > 1)]:
            raise LongTailError(
                f'{main}: the score {score:g} is not between 0 and 1, so '
                '--rescore cannot raise it to a power'
            )
        groups = statistics.frequency_group()
        power = np.array([power_of.get(g, 1.0) for g in groups])  # (C,)
        found = replace(found, score=found.score ** power[found.label])
    parts = [found, *(_read_expert(e, truth, iou_type) for e in experts)]
    united = nms(Detections.concatenate(parts), nms_iou)
    united = united.best_per_image(max_detections)
    write_atomic(out, json.dumps(united.as_results(truth)))
    print(f'{out}: {len(united):,} detections')
    return united


def _read_classes(
    path: str, images_of: GroundTruth | None = None
) -> GroundTruth:
    """Read the categories of a file, and its images or those of another."""
    content, source = read_json(path), path
    if isinstance(content, dict):
        # A test set has no annotations, and nothing here needs any.
        content['annotations'] = []
        if images_of is not None:
            content['images'] = images_of.images
            source = f'{images_of.source} with the categories of {path}'
    parse_annotations(content, path)
    return GroundTruth(content, source, 'coco')


def _read_expert(
    expert: tuple[str, str, str], truth: GroundTruth, iou_type: str
) -> Detections:
    """Read the detections of an expert as classes of the main dataset."""
    results, class_map, annotations = expert
    own = _read_classes(annotations, truth)
    main_of = read_class_map(class_map, own, truth)
    label_of = {name: label for label, name in enumerate(truth.class_names)}
    main_label = [
        label_of.get(main_of.get(n, ''), -1) for n in own.class_names
    ]
    detections = Detections.load(results, own, iou_type)
    label = np.array(main_label)[detections.label]
    kept = replace(detections, label=label).take(np.flatnonzero(label >= 0))
    print(f'{results}: {len(kept):,} of {len(detections):,} detections mapped')
    return kept


def nms(detections: Detections, threshold: float) -> Detections:
    """Remove what overlaps a better detection of its class and image.

    Of equal scores, the first is the better one.
    """
    order = np.lexsort((-detections.score, detections.label, detections.image))
    keys = np.stack([detections.image, detections.label])[:, order]
    starts = np.flatnonzero(np.diff(keys).any(0)) + 1
    shapes = detections.box if detections.masks is None else detections.masks
    kept: list[int] = []
    for rows in np.split(order, starts):
        stays = list(range(len(rows)))
        if len(rows) > 1:
            own = shapes[rows].tolist()
            iou = np.asarray(mask_utils.iou(own, own, [False] * len(own)))
            stays = []
            for k in range(len(rows)):
                if not (iou[k, stays] > threshold).any():
                    stays.append(k)
        kept += rows[stays].tolist()
    return detections.take(np.sort(np.array(kept, np.int64)))

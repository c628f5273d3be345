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
            for `read_class_map` with the columns extra and main, and an
            annotation file with the expert's categories.
        ann_file (str): Annotation file with the images and the categories of
            the detector. Its annotations are not used.
        out (str): Result file to write.
        iou_type (str): 'bbox' or 'segm'.
        statistics (ClassStatistics, optional): Counts of the training set,
            which ``power_of`` needs.
        power_of (Mapping[str, float], optional): Exponent in (0, 1] of the
            detector's scores per frequency group.
        nms_iou (float): IoU threshold of NMS per class.
        max_detections (int): Number of best detections kept per image.

    Raises:
        LongTailError: If a file is missing, broken, or of other images or
            classes, or the scores cannot be raised to a power.
    """
    ground_truth = read_classes(ann_file)
    found = Detections.load(main, ground_truth, iou_type)
    print(f'{main}: {len(found):,} detections')
    if power_of:
        if statistics is None:
            raise LongTailError(
                '--rescore: groups need counts of the training set; add '
                '--statistics or --train'
            )
        check_counted_classes(ground_truth, statistics)
        found = rescore(found, statistics, power_of, main)
    parts = [found]
    for expert in experts:
        parts.append(read_expert(*expert, ground_truth, iou_type))
    united = nms(Detections.concatenate(parts), iou_type, nms_iou)
    united = united.best_per_image(max_detections)
    write_atomic(out, json.dumps(united.as_results(ground_truth)))
    print(f'{out}: {len(united):,} detections')
    return united


def rescore(
    detections: Detections,
    statistics: ClassStatistics,
    power_of: Mapping[str, float],
    source: str,
) -> Detections:
    """Raise scores to the power of the frequency group of their class.

    Args:
        detections (Detections): Detections with scores in [0, 1].
        statistics (ClassStatistics): Counts of the training set.
        power_of (Mapping[str, float]): Exponents; the other groups keep
            their scores.
        source (str): Path of the detections, for messages.

    Raises:
        LongTailError: If a score is not in [0, 1].
    """
    wrong = (detections.score < 0) | (detections.score > 1)
    if wrong.any():
        raise LongTailError(
            f'{source}: the score {detections.score[wrong][0]:g} is not '
            'between 0 and 1, so --rescore cannot raise it to a power'
        )
    power = np.array(
        [power_of.get(group, 1.0) for group in statistics.frequency_group()]
    )  # (C,)
    score = detections.score ** power[detections.label]
    return replace(detections, score=score)


def read_classes(
    path: str, images_of: GroundTruth | None = None
) -> GroundTruth:
    """Read the categories of a file, and its images or those of another one.

    Raises:
        LongTailError: If the file is missing or broken.
    """
    content = read_json(path)
    source = path
    if isinstance(content, dict):
        # A test set has no annotations, and nothing here needs any.
        content['annotations'] = []
        if images_of is not None:
            content['images'] = images_of.images
            source = f'{images_of.source} with the categories of {path}'
    parse_annotations(content, path)
    return GroundTruth(content, source, 'coco')


def read_expert(
    results: str,
    class_map: str,
    annotations: str,
    ground_truth: GroundTruth,
    iou_type: str,
) -> Detections:
    """Read the detections of an expert as classes of the main dataset.

    Raises:
        LongTailError: If a file is missing or broken, or of other images or
            classes.
    """
    own = read_classes(annotations, ground_truth)
    main_of = read_class_map(
        class_map,
        own.class_names,
        ground_truth.class_names,
        annotations,
        ground_truth.source,
    )
    label_of = {n: label for label, n in enumerate(ground_truth.class_names)}
    main_label = np.array(
        [
            label_of[main_of[name]] if name in main_of else -1
            for name in own.class_names
        ]
    )
    detections = Detections.load(results, own, iou_type)
    label = main_label[detections.label]
    kept = replace(detections, label=label)
    kept = kept.take(np.flatnonzero(label >= 0))
    print(f'{results}: {len(kept):,} of {len(detections):,} detections mapped')
    return kept


def nms(detections: Detections, iou_type: str, threshold: float) -> Detections:
    """Remove what overlaps a better detection of its class and image.

    Of equal scores, the first is the better one.
    """
    order = np.lexsort((-detections.score, detections.label, detections.image))
    image, label = detections.image[order], detections.label[order]
    starts = np.flatnonzero((np.diff(image) != 0) | (np.diff(label) != 0)) + 1
    kept: list[int] = []
    for rows in np.split(order, starts):
        if len(rows) > 1:
            rows = rows[best(overlaps(detections, rows, iou_type), threshold)]
        kept += rows.tolist()
    return detections.take(np.sort(np.array(kept, np.int64)))


def overlaps(
    detections: Detections, rows: np.ndarray, iou_type: str
) -> np.ndarray:
    """Compute the IoU of k detections with each other, (k, k)."""
    if iou_type == 'segm':
        assert detections.masks is not None
        shapes = [detections.masks[row] for row in rows.tolist()]
    else:
        shapes = detections.box[rows].tolist()
    return np.asarray(mask_utils.iou(shapes, shapes, [False] * len(shapes)))


def best(iou: np.ndarray, threshold: float) -> list[int]:
    """Return the rows that greedy NMS keeps of k detections, best first."""
    stays: list[int] = []
    for row in range(len(iou)):
        if not (iou[row, stays] > threshold).any():
            stays.append(row)
    return stays

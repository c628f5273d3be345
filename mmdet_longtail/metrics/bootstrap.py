"""How far AP would move on other images: the bootstrap over images.

Efron and Tibshirani, An Introduction to the Bootstrap, 1993: draw as many
images as there are, with replacement, and evaluate again. The matches
between detections and objects stay; only how often they count changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.progress import track

from mmdet_longtail.metrics.back_ends import hotcoco_evaluation
from mmdet_longtail.metrics.detections import Detections
from mmdet_longtail.metrics.evaluation import MAX_DETECTIONS
from mmdet_longtail.metrics.ground_truth import GroundTruth

RECALL_THRESHOLDS = np.linspace(0, 1, 101)


@dataclass(frozen=True, eq=False)
class Matches:
    """Detections that count, the best of each class first, and objects.

    Args:
        image, label (np.ndarray): (n,) int64 of the detections, label
            rising.
        score (np.ndarray): (n,) falling within a class.
        is_true, is_false (np.ndarray): (n, T) bool, whether a detection is a
            true or a false positive at each IoU threshold; neither where it
            is ignored.
        num_objects (np.ndarray): (I, C) int64 objects to find.
    """

    image: np.ndarray
    label: np.ndarray
    score: np.ndarray
    is_true: np.ndarray
    is_false: np.ndarray
    num_objects: np.ndarray


def match(
    ground_truth: GroundTruth,
    detections: Detections,
    iou_type: str,
    max_detections: int | None = None,
) -> Matches:
    """Match detections with objects of all sizes; see `evaluate`."""
    evaluation = hotcoco_evaluation(
        ground_truth,
        detections,
        iou_type,
        max_detections or MAX_DETECTIONS[ground_truth.rules],
    )
    evaluation.params.area_rng = evaluation.params.area_rng[:1]
    evaluation.params.area_rng_lbl = evaluation.params.area_rng_lbl[:1]
    evaluation.evaluate()
    shape = (len(ground_truth.images), ground_truth.num_classes)
    num_objects = np.zeros(shape, np.int64)
    image, label, score, is_true, is_false = [], [], [], [], []
    for pair in evaluation.eval_imgs:
        if pair is None:
            continue
        i, k = pair['image_id'] - 1, pair['category_id'] - 1
        num_objects[i, k] += len(pair['gtIds']) - sum(pair['gtIgnore'])
        n = len(pair['dtScores'])
        if n == 0:
            continue
        is_matched = np.array(pair['dtMatched'], bool)  # (T, n)
        is_counted = ~np.array(pair['dtIgnore'], bool)
        image += [i] * n
        label += [k] * n
        score += pair['dtScores']
        is_true.append((is_matched & is_counted).T)
        is_false.append((~is_matched & is_counted).T)
    T = len(evaluation.params.iou_thrs)
    empty = np.zeros((0, T), bool)
    columns = {
        'image': np.array(image, np.int64),
        'label': np.array(label, np.int64),
        'score': np.array(score, np.float64),
        'is_true': np.concatenate([empty, *is_true]),
        'is_false': np.concatenate([empty, *is_false]),
    }
    order = np.lexsort((columns['image'], -columns['score'], columns['label']))
    return Matches(
        num_objects=num_objects,
        **{name: column[order] for name, column in columns.items()},
    )


def weighted_ap(matches: Matches, image_weights: np.ndarray) -> np.ndarray:
    """AP of each class when every image counts as often as its weight.

    Precision is interpolated as the evaluators do it: the highest at this or
    any higher recall, at 101 recall thresholds.

    Args:
        matches (Matches): From `match`.
        image_weights (np.ndarray): (I,) >= 0.

    Returns:
        np.ndarray: (C,), NaN for a class without objects.
    """
    num_objects = image_weights @ matches.num_objects  # (C,)
    weights = image_weights[matches.image].astype(np.float64)  # (n,)
    edges = np.searchsorted(matches.label, np.arange(len(num_objects) + 1))
    ap = np.full(len(num_objects), np.nan)
    for k in np.flatnonzero(num_objects > 0).tolist():
        rows = slice(edges[k], edges[k + 1])
        weight = weights[rows, None]
        true = (weight * matches.is_true[rows]).cumsum(0)  # (n, T)
        false = (weight * matches.is_false[rows]).cumsum(0)
        recall = true / num_objects[k]
        precision = true / np.maximum(true + false, np.spacing(1))
        highest = np.maximum.accumulate(precision[::-1])[::-1]
        ap[k] = np.mean(
            [
                _at_recall_thresholds(r, p)
                for r, p in zip(recall.T, highest.T, strict=True)
            ]
        )
    return ap


def _at_recall_thresholds(recall: np.ndarray, highest: np.ndarray) -> float:
    """Mean precision over the recall thresholds, 0 where not reached."""
    first = np.searchsorted(recall, RECALL_THRESHOLDS, side='left')
    reached = highest[first[first < len(recall)]]
    return float(reached.sum() / len(RECALL_THRESHOLDS))


def bootstrap(
    several: Sequence[Matches],
    repeats: int,
    seed: int = 0,
    console: Console | None = None,
) -> list[np.ndarray]:
    """Evaluate on drawn images, the same ones for each detector.

    Args:
        several (Sequence[Matches]): One for each detector, of the same set.
        repeats (int): B, draws of I images with replacement.
        seed (int): Of the draws.
        console (Console, optional): Where to show a progress bar.

    Returns:
        list[np.ndarray]: For each detector the AP of each class (B, C), NaN
        where a class has no object in the images drawn.
    """
    num_images = len(several[0].num_objects)
    random = np.random.default_rng(seed)
    class_ap: list[list[np.ndarray]] = [[] for _ in several]
    for _ in track(
        range(repeats), 'bootstrap', console=console, disable=console is None
    ):
        drawn = random.integers(0, num_images, num_images)
        weights = np.bincount(drawn, minlength=num_images)
        for matches, values in zip(several, class_ap, strict=True):
            values.append(weighted_ap(matches, weights))
    return [np.stack(values) for values in class_ap]


def interval(
    values: np.ndarray, confidence: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of bootstrapped values, NaN left out.

    Args:
        values (np.ndarray): (B,).
        confidence (float): Share of the values inside, 0..1.
    """
    outside = (1 - confidence) / 2
    if np.isnan(values).all():
        return float('nan'), float('nan')
    low, high = np.nanquantile(values, [outside, 1 - outside])
    return float(low), float(high)


"""How far AP would move on other images: the bootstrap over images.

Efron and Tibshirani, An Introduction to the Bootstrap, 1993: draw as many
images as there are, with replacement, and evaluate again. The matches
between detections and objects stay; only how often they count changes.
It says nothing of how far AP would move if the detector were trained again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.progress import track

from mmdet_longtail.evaluation.functional.average_precision import (
    MAX_DETECTIONS,
    Evaluation,
    mean,
)
from mmdet_longtail.evaluation.functional.back_ends import (
    IOU_THRESHOLDS,
    has_ignored,
    hotcoco_evaluation,
    lvis_evaluation,
)
from mmdet_longtail.evaluation.functional.detections import Detections
from mmdet_longtail.evaluation.functional.ground_truth import GroundTruth

RECALL_THRESHOLDS = np.linspace(0, 1, 101)
Interval = tuple[float, float]


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
    limit = max_detections or MAX_DETECTIONS[ground_truth.rules]
    pairs_of = _pairs_of_lvis if has_ignored(ground_truth) else _pairs
    shape = (len(ground_truth.images), ground_truth.num_classes)
    num_objects = np.zeros(shape, np.int64)
    empty = np.zeros((0, len(IOU_THRESHOLDS)), bool)
    image, label, score = [], [], []
    is_true, is_false = [empty], [empty]
    for pair in pairs_of(ground_truth, detections, iou_type, limit):
        num_objects[pair.image, pair.label] += pair.num_objects
        n = len(pair.scores)
        if n == 0:
            continue
        is_matched = np.array(pair.is_matched, bool)  # (T, n)
        is_counted = ~np.array(pair.is_ignored, bool)
        image += [pair.image] * n
        label += [pair.label] * n
        score += pair.scores
        is_true.append((is_matched & is_counted).T)
        is_false.append((~is_matched & is_counted).T)
    columns = {
        'image': np.array(image, np.int64),
        'label': np.array(label, np.int64),
        'score': np.array(score, np.float64),
        'is_true': np.concatenate(is_true),
        'is_false': np.concatenate(is_false),
    }
    order = np.lexsort((columns['image'], -columns['score'], columns['label']))
    return Matches(
        num_objects=num_objects,
        **{name: column[order] for name, column in columns.items()},
    )


@dataclass(frozen=True, eq=False)
class _Pair:
    """What an evaluator says of one image and one class."""

    image: int
    label: int
    num_objects: int
    scores: list[float]  # (n,)
    is_matched: Sequence  # (T, n)
    is_ignored: Sequence


def _pairs(
    ground_truth: GroundTruth,
    detections: Detections,
    iou_type: str,
    max_detections: int,
) -> Iterator[_Pair]:
    evaluation = hotcoco_evaluation(
        ground_truth, detections, iou_type, max_detections
    )
    evaluation.params.area_rng = evaluation.params.area_rng[:1]
    evaluation.params.area_rng_lbl = evaluation.params.area_rng_lbl[:1]
    evaluation.evaluate()
    for pair in filter(None, evaluation.eval_imgs):
        yield _Pair(
            image=pair['image_id'] - 1,
            label=pair['category_id'] - 1,
            num_objects=len(pair['gtIds']) - sum(pair['gtIgnore']),
            scores=pair['dtScores'],
            is_matched=pair['dtMatched'],
            is_ignored=pair['dtIgnore'],
        )


def _pairs_of_lvis(
    ground_truth: GroundTruth,
    detections: Detections,
    iou_type: str,
    max_detections: int,
) -> Iterator[_Pair]:
    evaluation = lvis_evaluation(
        ground_truth, detections, iou_type, max_detections
    )
    evaluation.params.area_rng = evaluation.params.area_rng[:1]
    evaluation.evaluate()
    for pair in filter(None, evaluation.eval_imgs):
        yield _Pair(
            image=ground_truth.image_of[pair['image_id']],
            label=ground_truth.label_of[pair['category_id']],
            num_objects=len(pair['gt_ids']) - int(sum(pair['gt_ignore'])),
            scores=pair['dt_scores'],
            is_matched=pair['dt_matches'],
            is_ignored=pair['dt_ignore'],
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


def bootstrap_means(
    evaluations: Sequence[Evaluation],
    repeats: int,
    seed: int = 0,
    console: Console | None = None,
) -> list[dict[str, np.ndarray]]:
    """Evaluate detectors and average over classes, on drawn images.

    A mean is over the classes that have an object in the images drawn, so
    over fewer classes than on all images where objects are few.

    Args:
        evaluations (Sequence[Evaluation]): One for each detector, of the
            same set and groups.
        repeats (int): B.
        seed (int): Of the draws.
        console (Console, optional): Where to show a progress bar.

    Returns:
        list[dict[str, np.ndarray]]: For each detector (B,) of AP and of each
        group's AP, NaN where no class has an object.
    """
    several = [
        match(e.ground_truth, e.detections, e.iou_type, e.max_detections)
        for e in evaluations
    ]
    return [
        {'AP': _mean_of_present(class_ap)}
        | {
            group.key: _mean_of_present(class_ap[:, group.members])
            for group in evaluation.groups
        }
        for evaluation, class_ap in zip(
            evaluations,
            bootstrap(several, repeats, seed, console),
            strict=True,
        )
    ]


def _mean_of_present(class_ap: np.ndarray) -> np.ndarray:
    """Mean (B,) over the classes of (B, C), NaN left out."""
    number = np.isfinite(class_ap).sum(1)
    with np.errstate(invalid='ignore'):
        return np.nansum(class_ap, 1) / number


def interval(
    value: float, draws: np.ndarray, confidence: float = 0.95
) -> Interval:
    """Interval of a value: percentiles of its draws, moved by their bias.

    AP is higher on drawn images than on all: interpolation takes the highest
    precision to come, and fewer different images vary more. So the draws are
    moved until their mean is the value. The interval is then one for AP on
    other validation sets of the same size.

    Args:
        value (float): On all images.
        draws (np.ndarray): (B,) on drawn images, NaN left out.
        confidence (float): Share of the draws inside, 0..1.
    """
    if np.isnan(draws).all():
        return float('nan'), float('nan')
    outside = (1 - confidence) / 2
    moved = draws - np.nanmean(draws) + value
    low, high = np.nanquantile(moved, [outside, 1 - outside])
    return float(low), float(high)


def intervals(
    evaluation: Evaluation,
    means: Mapping[str, np.ndarray],
    confidence: float = 0.95,
) -> dict[str, Interval]:
    """Give the interval of each mean that is over some class.

    Args:
        evaluation (Evaluation): On all images.
        means (Mapping[str, np.ndarray]): Its draws, from `bootstrap_means`.
        confidence (float): Share of the draws inside, 0..1.
    """
    behind = evaluation.behind_means()
    return {
        name: interval(mean(behind[name]), draws, confidence)
        for name, draws in means.items()
        if np.isfinite(draws).any()
    }


@dataclass(frozen=True)
class Difference:
    """How much better a detector is than another one, on the same images.

    Args:
        value (float): Difference of a mean, -1..1, on all images.
        low, high (float): Its interval over drawn images.
    """

    value: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def differences(
    evaluations: Sequence[Evaluation],
    means: Sequence[Mapping[str, np.ndarray]],
    confidence: float = 0.95,
) -> list[dict[str, Difference]]:
    """Compare detectors with the first, in pairs of the same images.

    Args:
        evaluations (Sequence[Evaluation]): One for each detector.
        means (Sequence[Mapping[str, np.ndarray]]): From `bootstrap_means`.
        confidence (float): Share of the drawn differences inside an interval.

    Returns:
        list[dict[str, Difference]]: For each detector the difference of each
        mean that is over some class; 0 for the first.
    """
    first, *_ = evaluations
    compared = []
    for evaluation, its_means in zip(evaluations, means, strict=True):
        of_means = {}
        for name, draws in its_means.items():
            if np.isfinite(draws).any():
                value = mean(evaluation.behind_means()[name]) - mean(
                    first.behind_means()[name]
                )
                between = draws - means[0][name]
                of_means[name] = Difference(
                    value, *interval(value, between, confidence)
                )
        compared.append(of_means)
    return compared

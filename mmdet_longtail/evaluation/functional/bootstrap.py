"""Confidence intervals of AP by the bootstrap over images.

Efron and Tibshirani, An Introduction to the Bootstrap, 1993: draw as many
images as there are, with replacement, and evaluate again. The matches between
detections and objects stay; only their weights change. The intervals do not
cover the variance of another training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.progress import track

from mmdet_longtail.evaluation.functional.average_precision import (
    Evaluation,
    mean,
)
from mmdet_longtail.evaluation.functional.matching import match_detections
from mmdet_longtail.evaluation.functional.spec import EvaluationSpec

RECALL_THRESHOLDS = np.linspace(0, 1, 101)
Interval = tuple[float, float]


@dataclass(frozen=True, eq=False)
class RankedMatches:
    """True and false positives per class, the best score first.

    Args:
        image, label (np.ndarray): (n,) int64 of the detections, label
            rising, score falling within a label.
        is_true, is_false (np.ndarray): (n, T) bool, true and false positives
            at each IoU threshold.
        num_objects (np.ndarray): (I, C) int64 objects to find.
    """

    image: np.ndarray
    label: np.ndarray
    is_true: np.ndarray
    is_false: np.ndarray
    num_objects: np.ndarray


def rank_matches(spec: EvaluationSpec) -> RankedMatches:
    """Match detections with objects of all sizes, and sort them."""
    truth, detections = spec.ground_truth, spec.detections
    matches = match_detections(spec)
    rows = np.flatnonzero((matches.is_true | matches.is_false).any(1))
    image, label = detections.image[rows], detections.label[rows]
    rows = rows[np.lexsort((image, -detections.score[rows], label))]
    is_object = (matches.is_found | matches.is_missed)[:, 0]
    num_objects = np.zeros((len(truth.images), truth.num_classes), np.int64)
    np.add.at(num_objects, (truth.image[is_object], truth.label[is_object]), 1)
    return RankedMatches(
        detections.image[rows],
        detections.label[rows],
        matches.is_true[rows],
        matches.is_false[rows],
        num_objects,
    )


def weighted_ap(
    matches: RankedMatches, image_weights: np.ndarray
) -> np.ndarray:
    """Compute the AP of each class with a weight per image.

    Precision is interpolated as by the evaluators: the highest at this or any
    higher recall, at 101 recall thresholds.

    Args:
        matches (RankedMatches): From `rank_matches`.
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
    """Average precision over the recall thresholds, 0 if not reached."""
    first = np.searchsorted(recall, RECALL_THRESHOLDS, side='left')
    reached = highest[first[first < len(recall)]]
    return float(reached.sum() / len(RECALL_THRESHOLDS))


def bootstrap(
    several: Sequence[RankedMatches],
    repeats: int,
    seed: int = 0,
    console: Console | None = None,
) -> list[np.ndarray]:
    """Compute AP on drawn images, the same draws for each detector.

    Args:
        several (Sequence[RankedMatches]): One per detector, of one set.
        repeats (int): B, draws of I images with replacement.
        seed (int): Random seed of the draws.
        console (Console, optional): Console for a progress bar.

    Returns:
        list[np.ndarray]: For each detector the AP of each class (B, C), NaN
        for a class without objects in the drawn images.
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
    """Compute the means over classes on drawn images.

    A mean is over the classes with an object in the drawn images, which are
    fewer classes than on all images where objects are few.

    Args:
        evaluations (Sequence[Evaluation]): One per detector, of one set and
            the same groups.
        repeats (int): B.
        seed (int): Random seed of the draws.
        console (Console, optional): Console for a progress bar.

    Returns:
        list[dict[str, np.ndarray]]: For each detector (B,) of AP and of each
        group's AP, NaN where no class has an object.
    """
    several = [rank_matches(evaluation.spec) for evaluation in evaluations]
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
    """Compute the mean (B,) over the classes of (B, C), NaN left out."""
    number = np.isfinite(class_ap).sum(1)
    with np.errstate(invalid='ignore'):
        return np.nansum(class_ap, 1) / number


def interval(
    value: float, draws: np.ndarray, confidence: float = 0.95
) -> Interval:
    """Compute an interval: percentiles of the draws, corrected for bias.

    AP is higher on drawn images than on all: interpolation takes the highest
    precision to come, and fewer different images vary more. The draws are
    moved so that their mean is the value. The interval is then one for AP on
    other validation sets of the same size.

    Args:
        value (float): Mean on all images.
        draws (np.ndarray): (B,) means on drawn images, NaN left out.
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
    """Compute the interval of each mean that is over at least one class.

    Args:
        evaluation (Evaluation): On all images.
        means (Mapping[str, np.ndarray]): Draws, from `bootstrap_means`.
        confidence (float): Share of the draws inside, 0..1.
    """
    values_of = evaluation.per_class_values()
    return {
        name: interval(mean(values_of[name]), draws, confidence)
        for name, draws in means.items()
        if np.isfinite(draws).any()
    }


@dataclass(frozen=True)
class Difference:
    """Paired difference of two detectors' means.

    Args:
        value (float): Difference on all images, -1..1.
        low, high (float): Interval of the difference over drawn images.
    """

    value: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        mark = ' *' if self.is_clear else ''
        return f'{self.value:+.4f} ({self.low:+.4f} to {self.high:+.4f}){mark}'


def differences(
    evaluations: Sequence[Evaluation],
    means: Sequence[Mapping[str, np.ndarray]],
    confidence: float = 0.95,
) -> list[dict[str, Difference]]:
    """Compare detectors with the first, paired by the drawn images.

    Args:
        evaluations (Sequence[Evaluation]): One per detector.
        means (Sequence[Mapping[str, np.ndarray]]): From `bootstrap_means`.
        confidence (float): Share of the drawn differences inside an interval.

    Returns:
        list[dict[str, Difference]]: For each detector the difference of each
        mean that is over at least one class; 0 for the first.
    """
    first, *_ = evaluations
    compared = []
    for evaluation, its_means in zip(evaluations, means, strict=True):
        of_means = {}
        for name, draws in its_means.items():
            if np.isfinite(draws).any():
                value = mean(evaluation.per_class_values()[name]) - mean(
                    first.per_class_values()[name]
                )
                between = draws - means[0][name]
                of_means[name] = Difference(
                    value, *interval(value, between, confidence)
                )
        compared.append(of_means)
    return compared

"""Confidence intervals of AP by the bootstrap over images.

Efron and Tibshirani, An Introduction to the Bootstrap, 1993: draw as many
images as there are, with replacement, and evaluate again. The matches between
detections and objects stay; only their weights change. The intervals do not
cover the variance of another training.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.progress import track

from mmdet_longtail.evaluation.functional.average_precision import Evaluation
from mmdet_longtail.evaluation.functional.detections import EvaluationSpec
from mmdet_longtail.evaluation.functional.matching import match_detections

RECALL_THRESHOLDS = np.linspace(0, 1, 101)
Interval = tuple[float, float]


@dataclass(frozen=True, eq=False)
class RankedMatches:
    """True and false positives per class, the best score first."""

    image: np.ndarray  # (n,) int64
    label: np.ndarray  # (n,) int64, rising
    is_true: np.ndarray  # (n, T) bool per IoU threshold
    is_false: np.ndarray  # (n, T) bool
    num_objects: np.ndarray  # (I, C) int64 objects to find


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
    higher recall, at 101 recall thresholds. From weights (I,) >= 0 follows
    (C,), NaN for a class without objects.
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
        of_thresholds = []
        for its_recall, its_highest in zip(recall.T, highest.T):
            first = np.searchsorted(its_recall, RECALL_THRESHOLDS)
            reached = its_highest[first[first < len(weight)]]
            of_thresholds.append(reached.sum() / len(RECALL_THRESHOLDS))
        ap[k] = np.mean(of_thresholds)
    return ap


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
        evaluations (Sequence[Evaluation]): One per detector, of one set.
        repeats (int): B, draws of I images with replacement.
        seed (int): Random seed of the draws.
        console (Console, optional): Console for a progress bar.

    Returns:
        list[dict[str, np.ndarray]]: For each detector (B,) of AP and of each
        group's AP, NaN where no class has an object.
    """
    several = [rank_matches(evaluation.spec) for evaluation in evaluations]
    num_images = len(several[0].num_objects)
    random = np.random.default_rng(seed)
    repetitions = track(
        range(repeats), 'bootstrap', console=console, disable=console is None
    )
    drawn_ap = []
    for _ in repetitions:
        drawn = random.integers(0, num_images, num_images)
        weights = np.bincount(drawn, minlength=num_images)
        drawn_ap.append([weighted_ap(matches, weights) for matches in several])
    means = []
    for evaluation, ap in zip(evaluations, np.stack(drawn_ap, axis=1)):
        values_of = {'AP': ap}  # (B, C)
        values_of |= {g.key: ap[:, g.members] for g in evaluation.groups}
        with np.errstate(invalid='ignore'):
            its_means = {
                name: np.nansum(values, 1) / np.isfinite(values).sum(1)
                for name, values in values_of.items()
            }
        means.append(its_means)
    return means


def interval(
    value: float, draws: np.ndarray, confidence: float = 0.95
) -> Interval:
    """Compute an interval: percentiles of the draws, corrected for bias.

    AP is higher on drawn images than on all: interpolation takes the highest
    precision to come, and fewer different images vary more. The draws are
    moved so that their mean is the value. The interval is then one for AP on
    other validation sets of the same size; NaN without any draw.

    ``value`` is on all images, draws (B,) on drawn ones, NaN left out.
    ``confidence`` is the share of the draws inside, 0..1.
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
    """Compute the `interval` of each mean that is over at least one class.

    ``means`` are the evaluation's draws of `bootstrap_means`.
    """
    value_of = evaluation.means()
    return {
        name: interval(value_of[name], draws, confidence)
        for name, draws in means.items()
        if np.isfinite(draws).any()
    }


@dataclass(frozen=True)
class Difference:
    """Paired difference of two detectors' means.

    ``value`` is on all images, -1..1; ``low`` to ``high`` over drawn images.
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

    Per detector the result has each mean that is over at least one class;
    its difference is 0 for the first. ``means`` are from `bootstrap_means`.
    """
    values = [evaluation.means() for evaluation in evaluations]

    def difference(name: str, k: int) -> Difference:
        value = values[k][name] - values[0][name]
        draws = means[k][name] - means[0][name]
        return Difference(value, *interval(value, draws, confidence))

    return [
        {
            name: difference(name, k)
            for name, draws in its_means.items()
            if np.isfinite(draws).any()
        }
        for k, its_means in enumerate(means)
    ]

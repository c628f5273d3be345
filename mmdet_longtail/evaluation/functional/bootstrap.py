"""Confidence intervals of AP by the bootstrap over images.

Efron and Tibshirani, An Introduction to the Bootstrap, 1993: draw as many
images as there are, with replacement, and evaluate again. The matches between
detections and objects stay; only their weights change. The intervals do not
cover the variance of another training.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.progress import track

from mmdet_longtail.evaluation.functional.average_precision import Evaluation
from mmdet_longtail.evaluation.functional.detections import EvaluationSpec
from mmdet_longtail.evaluation.functional.matching import match_detections

RECALL_THRESHOLDS = np.linspace(0, 1, 101)
Interval = tuple[float, float]


class TruePositives(NamedTuple):
    """The k true positives of one IoU threshold, between n ranked matches.

    What precision and recall count lies between two ends: before them are
    the matches of other classes, and those of lower rank.
    """

    row: np.ndarray  # (k,) int64, rising
    label: np.ndarray  # (k,) int64, rising
    first: np.ndarray  # (k,) int64, the first of its class among the k
    ends: np.ndarray  # (2, k) int64, rows from the class on to its own
    ignored: np.ndarray  # (g,) int64, rows that do not count, rising
    ignored_ends: np.ndarray  # (2, k) int64, the same among the g


@dataclass(frozen=True, eq=False)
class RankedMatches:
    """Detections of C classes in I images that count, matched with objects.

    They are sorted by class, then the best score first. Those behind the last
    true positive of a class are left out: no precision to come depends on
    them.
    """

    shape: tuple[int, int]  # I, C
    image: np.ndarray  # (n,) int64
    true_positives: Sequence[TruePositives]  # per IoU threshold
    object_image: np.ndarray  # (m,) int64 of the objects to find
    object_label: np.ndarray  # (m,) int64


def rank_matches(spec: EvaluationSpec) -> RankedMatches:
    """Match detections with objects of all sizes, and sort them."""
    truth, detections = spec.ground_truth, spec.detections
    matches = match_detections(spec)
    shape = len(truth.images), truth.num_classes
    lowest = np.full(truth.num_classes, np.inf)  # score of a true positive
    hits = np.flatnonzero(matches.is_true.any(1))
    np.minimum.at(lowest, detections.label[hits], detections.score[hits])
    is_counted = (matches.is_true | matches.is_false).any(1)
    is_counted &= detections.score >= lowest[detections.label]
    rows = np.flatnonzero(is_counted)
    image, label = detections.image[rows], detections.label[rows]
    rows = rows[np.lexsort((image, -detections.score[rows], label))]
    is_object = (matches.is_found | matches.is_missed)[:, 0]
    return RankedMatches(
        shape,
        detections.image[rows],
        [
            _find_true_positives(detections.label[rows], *columns)
            for columns in zip(
                matches.is_true[rows].T, matches.is_false[rows].T
            )
        ],
        truth.image[is_object],
        truth.label[is_object],
    )


def _find_true_positives(
    label: np.ndarray, is_true: np.ndarray, is_false: np.ndarray
) -> TruePositives:
    """Find the true positives among ranked matches, (n,) each."""
    row = np.flatnonzero(is_true)
    ignored = np.flatnonzero(~(is_true | is_false))
    ends = np.stack([np.searchsorted(label, label[row]), row + 1])
    return TruePositives(
        row,
        label[row],
        np.searchsorted(label[row], label[row]),
        ends,
        ignored,
        np.searchsorted(ignored, ends),
    )


def weighted_ap(
    matches: RankedMatches, image_weights: np.ndarray
) -> np.ndarray:
    """Compute the AP of each class with a weight per image.

    Precision is interpolated as by the evaluators: the highest at this or any
    higher recall, at 101 recall thresholds. From weights (I,) >= 0, whole
    numbers, follows (C,), NaN for a class without objects.
    """
    _, C = matches.shape
    weights = image_weights.astype(np.float64)
    num_objects = np.bincount(
        matches.object_label, weights[matches.object_image], C
    )
    weight = weights[matches.image]  # (n,)
    sums = _cumulative_sums(weight)
    total = np.zeros(C)
    for (
        row,
        label,
        first,
        ends,
        ignored,
        ignored_ends,
    ) in matches.true_positives:
        true_sums = _cumulative_sums(weight[row])
        true = true_sums[1:] - true_sums[first]
        ignored_sums = _cumulative_sums(weight[ignored])
        [counted] = np.diff(sums[ends], axis=0)
        counted -= np.diff(ignored_sums[ignored_ends], axis=0)[0]
        precision = true / np.maximum(counted, np.spacing(1))
        recall = true / np.maximum(num_objects[label], np.spacing(1))
        reached = np.searchsorted(RECALL_THRESHOLDS, recall, side='right')
        is_first = np.diff(label, prepend=-1) > 0
        # The recall thresholds that no match before reaches.
        new = np.diff(reached, prepend=0)
        new[is_first] = reached[is_first]
        highest = new * _highest_to_come(precision, label)
        total += np.bincount(label, highest, C)
    ap = total / len(RECALL_THRESHOLDS) / len(matches.true_positives)
    return np.where(num_objects > 0, ap, np.nan)


def _cumulative_sums(values: np.ndarray) -> np.ndarray:
    """Compute the sums of the first 0 to n values, (n + 1,)."""
    return np.append(0, values.cumsum())


def _highest_to_come(values: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Compute the maximum (n,) of each value and those of its label behind."""
    highest = values.copy()
    step = 1
    # Each round doubles the number of values that a maximum is over.
    while (same := np.flatnonzero(label[step:] == label[:-step])).size:
        highest[same] = np.maximum(highest[same], highest[same + step])
        step *= 2
    return highest


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
    num_images, num_classes = several[0].shape
    random = np.random.default_rng(seed)
    repetitions = track(
        range(repeats), 'bootstrap', console=console, disable=console is None
    )
    members = [
        {'AP': np.ones(num_classes, bool)}
        | {group.key: group.members for group in evaluation.groups}
        for evaluation in evaluations
    ]
    means = [{name: np.empty(repeats) for name in of} for of in members]
    for draw in repetitions:
        drawn = random.integers(0, num_images, num_images)
        weights = np.bincount(drawn, minlength=num_images)
        for matches, its_means, its_members in zip(several, means, members):
            ap = weighted_ap(matches, weights)  # (C,)
            for name, is_member in its_members.items():
                present = ap[is_member & np.isfinite(ap)]
                its_means[name][draw] = (
                    present.mean() if len(present) else np.nan
                )
    return means


def interval(
    value: float,
    draws: np.ndarray,
    confidence: float = 0.95,
    bounds: Interval = (0.0, 1.0),
) -> Interval:
    """Compute an interval: percentiles of the draws, corrected for bias.

    AP is higher on drawn images than on all: interpolation takes the highest
    precision to come, and fewer different images vary more. The draws are
    moved so that their mean is the value. The interval is then one for AP on
    other validation sets of the same size. The move can push an end beyond
    what AP can be. The end is then the bound, which the interval covers as
    often.

    Args:
        value (float): On all images, -1 for a mean over no class.
        draws (np.ndarray): (B,) on drawn images, NaN left out.
        confidence (float): Share of the draws inside, 0..1.
        bounds (Interval): Smallest and largest possible value.

    Returns:
        Interval: NaN without any draw, or without a value.

    Examples:
        >>> low, high = interval(0.4, np.linspace(0.3, 0.5, 201))
        >>> round(low, 3), round(high, 3)
        (0.305, 0.495)
    """
    if np.isnan(draws).all() or not bounds[0] <= value <= bounds[1]:
        return float('nan'), float('nan')
    outside = (1 - confidence) / 2
    moved = draws - np.nanmean(draws) + value
    ends = np.nanquantile(moved, [outside, 1 - outside])
    low, high = np.clip(ends, *bounds)
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

    Examples:
        >>> print(Difference(value=0.012, low=0.004, high=0.021))
        +1.20 (+0.40 to +2.10) *
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
        value, low, high = (
            f'{100 * x:+.2f}' for x in (self.value, self.low, self.high)
        )
        return f'{value} ({low} to {high}){mark}'


def differences(
    evaluations: Sequence[Evaluation],
    means: Sequence[Mapping[str, np.ndarray]],
    confidence: float = 0.95,
) -> list[dict[str, Difference]]:
    """Compare detectors with the first, paired by the drawn images.

    Per detector the result has each mean that is over at least one class;
    its difference is 0 for the first. ``means`` are from `bootstrap_means`.
    """
    return [
        {
            name: _difference(evaluations, means, confidence, name, k, 0)
            for name, draws in its_means.items()
            if np.isfinite(draws).any()
        }
        for k, its_means in enumerate(means)
    ]


def leaders(
    evaluations: Sequence[Evaluation],
    means: Sequence[Mapping[str, np.ndarray]],
    confidence: float = 0.95,
) -> dict[str, list[int]]:
    """Return the detectors that may be the best, per mean over any class.

    They are the one with the highest value, and each whose paired difference
    to it is not clear, from the highest value on. ``means`` are from
    `bootstrap_means`.
    """
    result = {}
    for name, draws in means[0].items():
        if np.isfinite(draws).any():
            values = [evaluation.means()[name] for evaluation in evaluations]
            order = np.argsort(-np.array(values), kind='stable').tolist()
            result[name] = [
                k
                for k in order
                if not _difference(
                    evaluations, means, confidence, name, k, order[0]
                ).is_clear
            ]
    return result


def _difference(
    evaluations: Sequence[Evaluation],
    means: Sequence[Mapping[str, np.ndarray]],
    confidence: float,
    name: str,
    k: int,
    reference: int,
) -> Difference:
    """Subtract a mean of one detector from that of another."""
    its, others = (evaluations[i].means()[name] for i in (k, reference))
    draws = means[k][name] - means[reference][name]
    ends = interval(its - others, draws, confidence, (-1.0, 1.0))
    return Difference(its - others, *ends)

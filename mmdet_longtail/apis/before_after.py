"""Comparison of the two stages of a training on the same images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmdet.evaluation import CocoMetric, LVISMetric
from mmdet.registry import METRICS

from mmdet_longtail.apis.evaluation import Bootstrap
from mmdet_longtail.evaluation.functional import (
    BACKGROUND,
    IGNORED,
    UNLIMITED,
    Detections,
    Evaluation,
    EvaluationSpec,
    GroundTruth,
    differences,
    evaluate,
    intervals,
    predicted_labels,
)
from mmdet_longtail.evaluation.metrics import (
    FixedAPMetric,
    FrequencyGroupMetric,
)
from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.utils.registry import is_type, resolve_type

NAMES = ('before', 'after')
# mmdet's metrics have three digits.
ROUNDING = 6e-4


def find_evaluator(evaluators: Any) -> Mapping[str, Any] | None:
    """Find the metric of which tools/test.py --out writes the detections.

    It reads a COCO or LVIS file; None if the first that writes does not.
    """
    if isinstance(evaluators, Mapping):
        evaluators = [evaluators]
    for evaluator in evaluators:
        if is_type(METRICS, evaluator, CocoMetric, FrequencyGroupMetric):
            return evaluator if evaluator.get('ann_file') else None
    return None


def compare_stages(
    evaluator: Mapping[str, Any],
    folder: Path,
    statistics: ClassStatistics,
    metrics: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Compute the intervals of the stages' APs, and of the differences.

    Args:
        evaluator (Mapping): A metric of `find_evaluator`.
        folder (Path): Has the results before.bbox.json, after.bbox.json and
            so on. Without them there is no interval.
        statistics (ClassStatistics): Counts of the training set.
        metrics (Mapping): The APs before and after, by their full names. An
            AP that the results do not give has no interval.

    Returns:
        dict[str, Any]: ``intervals``, by the name of the metric and then
        before, after and difference; ``warnings``, by stage; and
        ``rare_objects``, the number of rare objects and of those without
        any box of the base, see `count_unreached`.
    """
    result: dict[str, Any] = {'intervals': {}, 'warnings': {}}
    iou_types = evaluator.get('metric', 'bbox')
    for iou_type in (
        [iou_types] if isinstance(iou_types, str) else list(iou_types)
    ):
        paths = [folder / f'{name}.{iou_type}.json' for name in NAMES]
        if iou_type not in ('bbox', 'segm') or not all(
            path.is_file() for path in paths
        ):
            continue
        several = _evaluate(evaluator, iou_type, paths, statistics)
        for name, evaluation in zip(NAMES, several):
            if evaluation.spec.warning:
                result['warnings'][name] = evaluation.spec.warning
        if iou_type == 'bbox':
            result['rare_objects'] = count_unreached(several[0])
        for key, ends in _intervals(several).items():
            name = _full_name(evaluator, iou_type, key)
            pair = metrics.get(name, {})
            # Else the metric is of other images or rules.
            if all(
                isinstance(pair.get(stage), int | float)
                and abs(pair[stage] - evaluation.means()[key]) < ROUNDING
                for stage, evaluation in zip(NAMES, several)
            ):
                result['intervals'][name] = ends
    return result


def count_unreached(evaluation: Evaluation) -> dict[str, int]:
    """Count objects that no box covers with an IoU of 0.5, of any class.

    The objects are those of rare classes.
    """
    truth = evaluation.spec.ground_truth
    predicted = predicted_labels(evaluation.spec)
    is_rare = evaluation.groups[0].members
    is_counted = (predicted != IGNORED) & is_rare[truth.label]
    unreached = is_counted & (predicted == BACKGROUND)
    return {'all': int(is_counted.sum()), 'unreached': int(unreached.sum())}


def _evaluate(
    evaluator: Mapping[str, Any],
    iou_type: str,
    paths: list[Path],
    statistics: ClassStatistics,
) -> list[Evaluation]:
    rules, limit = evaluator.get('annotation_format'), None
    groups = statistics.frequency_groups()
    if is_type(METRICS, evaluator, CocoMetric):
        is_lvis = is_type(METRICS, evaluator, LVISMetric)
        rules = 'lvis' if is_lvis else 'coco'
    else:
        limit = evaluator.get('max_detections')
        if is_type(METRICS, evaluator, FixedAPMetric):
            limit = UNLIMITED
        if evaluator.get('bin_edges') is not None:
            groups += statistics.bin_groups(
                evaluator['bin_edges'],
                evaluator.get('bin_by', 'instance_count'),
            )
    truth = GroundTruth.load(evaluator['ann_file'], (iou_type,), rules)
    truth = truth.with_classes(statistics.class_names)
    return [
        evaluate(
            EvaluationSpec(
                truth, Detections.load(path, truth, iou_type), limit
            ),
            groups,
        )
        for path in paths
    ]


def _full_name(evaluator: Mapping[str, Any], iou_type: str, key: str) -> str:
    """Return the name of a metric from its name in an `Evaluation`."""
    kind = resolve_type(METRICS, evaluator)
    prefix = evaluator.get('prefix') or kind.default_prefix
    if issubclass(kind, CocoMetric) and not issubclass(kind, LVISMetric):
        key = key.replace('AP', 'mAP')
    return f'{prefix}/{iou_type}_{key}'


def _intervals(
    several: list[Evaluation],
) -> dict[str, dict[str, tuple[float, float]]]:
    """Compute the intervals of both stages and of their difference."""
    draws = Bootstrap().means(several)
    before, after = (intervals(*pair) for pair in zip(several, draws))
    _, compared = differences(several, draws)
    return {
        key: {
            'before': before[key],
            'after': after[key],
            'difference': (difference.low, difference.high),
        }
        for key, difference in compared.items()
    }

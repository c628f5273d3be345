"""Evaluation and comparison of result files, without torch and mmdet."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmdet_longtail.errors import check
from mmdet_longtail.evaluation.functional import (
    UNLIMITED,
    Detections,
    Evaluation,
    EvaluationSpec,
    GroundTruth,
    Interval,
    bootstrap_means,
    differences,
    evaluate,
    intervals,
    is_classification_error,
    proposal_recall,
    write_per_class_file,
)
from mmdet_longtail.evaluation.functional.detections import (
    AP_PREFIX,
    DETECTIONS_PER_CLASS,
    FIXED_AP_PREFIX,
    PROPOSAL_PREFIX,
)
from mmdet_longtail.structures.class_statistics import (
    ClassGroup,
    ClassStatistics,
    pool,
)
from mmdet_longtail.utils.class_names import check_counted_classes
from mmdet_longtail.utils.console import progress_console, table_console
from mmdet_longtail.utils.fileio import write_atomic
from mmdet_longtail.utils.tables import make_table, table_text
from mmdet_longtail.visualization.class_ap import plot_class_ap
from mmdet_longtail.visualization.figures import figure_bytes


@dataclass(frozen=True, eq=False)
class ValidationSet:
    """A validation set, and the rules of its evaluation.

    Args:
        ground_truth (GroundTruth): The annotations.
        iou_type (str): 'bbox' or 'segm'.
        statistics (ClassStatistics, optional): Counts of the training set.
        groups (Sequence[ClassGroup]): Groups of classes by these counts.
        max_detections (int, optional): See `EvaluationSpec`.
        back_end (str): See `EvaluationSpec`.
    """

    ground_truth: GroundTruth
    iou_type: str = 'bbox'
    statistics: ClassStatistics | None = None
    groups: Sequence[ClassGroup] = ()
    max_detections: int | None = None
    back_end: str = 'fast'

    @classmethod
    def load(
        cls,
        ann_file: str,
        iou_type: str = 'bbox',
        statistics: ClassStatistics | None = None,
        *,
        bin_edges: Sequence[float] | None = None,
        bin_by: str = 'instance_count',
        annotation_format: str | None = None,
        **rules: Any,
    ) -> 'ValidationSet':
        """Load COCO or LVIS annotations and group the classes.

        Args:
            ann_file (str): Annotation file.
            iou_type (str): 'bbox' or 'segm'.
            statistics (ClassStatistics, optional): None makes no groups.
            bin_edges (Sequence[float], optional): Bins as groups. Defaults to
                rare, common and frequent, and rare and common together.
            bin_by (str): Count for the bins, 'instance_count' or
                'image_count'.
            annotation_format (str, optional): 'lvis' or 'coco'; None decides
                by the content of the file.
            **rules (Any): ``max_detections`` and ``back_end``.

        Raises:
            LongTailError: If a file is missing or broken, or the counts are
                of other classes.
        """
        truth = GroundTruth.load(ann_file, (iou_type,), annotation_format)
        groups: list[ClassGroup] = []
        if statistics is not None:
            check_counted_classes(truth, statistics)
            groups = statistics.frequency_groups()
            groups.append(pool(groups[:2]))
            if bin_edges is not None:
                groups = statistics.bin_groups(bin_edges, bin_by)
        return cls(truth, iou_type, statistics, groups, **rules)

    def make_spec(self, results: str | Path) -> EvaluationSpec:
        """Load a COCO result file and specify its evaluation.

        Raises:
            LongTailError: If the file is missing, broken, or of other images
                or classes.
        """
        truth = self.ground_truth
        detections = Detections.load(results, truth, self.iou_type)
        return EvaluationSpec(
            truth, detections, self.max_detections, self.back_end
        )

    def checked_share(self) -> float | None:
        """Compute the mean share of classes that an image is checked for.

        The share is in 0..1, and None for a set that is not federated.
        """
        truth = self.ground_truth
        if truth.rules == 'coco':
            return None
        found = set(zip(truth.image.tolist(), truth.label.tolist()))
        absent = sum(len(i['neg_category_ids']) for i in truth.images)
        return (len(found) + absent) / (len(truth.images) * truth.num_classes)


@dataclass(frozen=True)
class Bootstrap:
    """Settings of the bootstrap over images.

    Args:
        repeats (int): Number of draws.
        seed (int): Random seed of the draws.
        confidence (float): Share of the draws inside an interval, 0..1.
    """

    repeats: int = 200
    seed: int = 0
    confidence: float = 0.95

    def means(self, evaluations: Sequence[Evaluation]) -> list[dict]:
        """Compute `bootstrap_means`, with a progress bar on a terminal."""
        return bootstrap_means(
            evaluations, self.repeats, self.seed, progress_console()
        )


def show_evaluation(
    results: str | Path,
    validation: ValidationSet,
    bootstrap: Bootstrap | None = None,
    *,
    fixed_ap: bool = False,
    recall: bool = False,
    without_confusions: bool = False,
    per_class_file: str | Path | None = None,
    json_file: str | Path | None = None,
) -> dict[str, float]:
    """Print and write the evaluation of a result file.

    Args:
        results (str | Path): COCO result file.
        validation (ValidationSet): Annotations, groups and rules.
        bootstrap (Bootstrap, optional): Settings of the intervals; None
            computes none.
        fixed_ap (bool): Whether to compute AP-Fixed, see `FixedAPMetric`.
        recall (bool): Whether to compute the recall of class-agnostic
            detections, see `ProposalRecallMetric`.
        without_confusions (bool): Whether to drop detections on an object of
            another class, to measure their effect.
        per_class_file (str | Path, optional): CSV file to write AP, recall,
            counts and confusions per class to.
        json_file (str | Path, optional): File to write the metrics to.

    Returns:
        dict[str, float]: The metrics, by the names of mmengine's evaluator,
        such as frequency_group/bbox_AP.

    Raises:
        LongTailError: If the file is missing, broken, or of other images or
            classes, or an output cannot be written.
    """
    truth, iou_type = validation.ground_truth, validation.iou_type
    spec = validation.make_spec(results)
    print(
        f'{results}: {len(spec.detections):,} detections in '
        f'{len(truth.images):,} images, by the rules of {truth.rules.upper()}'
    )
    if without_confusions:
        is_error = is_classification_error(spec)
        print(f'{is_error.sum():,} lie on an object of another class')
        kept = spec.detections.take(np.flatnonzero(~is_error))
        spec = replace(spec, detections=kept)
    share = validation.checked_share()
    if share is not None:
        print(
            f'On average, an image was checked for {share:.1%} of the classes.'
        )
    if spec.warning:
        print(f'warning: {spec.warning}')
    evaluations = {(AP_PREFIX, iou_type): evaluate(spec, validation.groups)}
    if fixed_ap:
        best = spec.detections.best_per_class(DETECTIONS_PER_CLASS)
        fixed = replace(spec, detections=best, max_detections=UNLIMITED)
        evaluation = evaluate(fixed, validation.groups)
        evaluations[FIXED_AP_PREFIX, iou_type] = evaluation
    metrics: dict[str, float] = {}
    for (prefix, _), evaluation in evaluations.items():
        metrics |= with_prefix(prefix, iou_type, evaluation.metrics())
    found = print_means(evaluations, bootstrap)
    if recall:
        values = proposal_recall(spec, validation.groups)
        metrics |= with_prefix(PROPOSAL_PREFIX, iou_type, values)
        rows = [
            (key, f'{100 * value:.2f}' if value >= 0 else '-')
            for key, value in values.items()
        ]
        title = 'proposal recall, in percent'
        table = make_table(('mean', 'value'), rows, title)
        print(f'\n{table_text(table)}')
    if per_class_file is not None:
        ap = {iou_type: evaluations[AP_PREFIX, iou_type]}
        write_per_class_file(per_class_file, ap, validation.statistics)
        print(f'classes: {per_class_file}')
    if json_file is not None:
        source = {'results': str(results), 'annotations': truth.source}
        notes = list(filter(None, [spec.warning]))
        write_metrics(json_file, source, metrics, found, bootstrap, notes)
        print(f'metrics: {json_file}')
    return metrics


def print_means(
    evaluations: Mapping[tuple[str, str], Evaluation],
    bootstrap: Bootstrap | None,
) -> dict[str, Interval]:
    """Print a table per metric prefix and IoU type; return the intervals.

    Intervals have the names of mmengine's evaluator.
    """
    found: dict[str, Interval] = {}
    for (prefix, iou_type), evaluation in evaluations.items():
        of_means = None
        if bootstrap is not None:
            [draws] = bootstrap.means([evaluation])
            of_means = intervals(evaluation, draws, bootstrap.confidence)
            found |= with_prefix(prefix, iou_type, of_means)
        print(f'\n{prefix}\n{evaluation.table(of_means)}')
    return found


def write_metrics(
    path: str | Path,
    source: Mapping[str, str],
    metrics: Mapping[str, Any],
    intervals: Mapping[str, Interval],
    bootstrap: Bootstrap | None,
    warnings: Sequence[str] = (),
) -> None:
    """Write metrics and their intervals as JSON, after their source.

    Warnings about the metrics, if any, stand beside them.
    """
    content: dict[str, Any] = {**source, 'metrics': dict(metrics)}
    if warnings:
        content['warnings'] = list(warnings)
    if bootstrap is not None:
        content['bootstrap'] = asdict(bootstrap) | {'intervals': intervals}
    write_atomic(path, json.dumps(content, indent=1) + '\n')


def show_comparison(
    results: Mapping[str, str | Path],
    validation: ValidationSet,
    bootstrap: Bootstrap,
    *,
    json_file: str | Path | None = None,
    picture: str | Path | None = None,
) -> dict[str, Evaluation]:
    """Print, write and plot the comparison of result files with the first.

    Differences are paired by the drawn images.

    Args:
        results (Mapping[str, str | Path]): COCO result files by detector.
        validation (ValidationSet): Annotations, groups and rules.
        bootstrap (Bootstrap): Settings of the intervals.
        json_file (str | Path, optional): File to write all figures to.
        picture (str | Path, optional): File to plot the AP of each class
            against that of the first detector to.

    Returns:
        dict[str, Evaluation]: By the name of the detector.

    Raises:
        LongTailError: See `show_evaluation`.
    """
    evaluations: dict[str, Evaluation] = {}
    for name, path in results.items():
        spec = validation.make_spec(path)
        if spec.warning:
            print(f'warning: {name}: {spec.warning}')
        evaluations[name] = evaluate(spec, validation.groups)
    several = [*evaluations.values()]
    draws = bootstrap.means(several)
    metrics = [evaluation.metrics() for evaluation in several]
    found = [
        intervals(evaluation, its_draws, bootstrap.confidence)
        for evaluation, its_draws in zip(several, draws, strict=True)
    ]
    to_first = differences(several, draws, bootstrap.confidence)

    first, *others = results
    means = [
        [
            key,
            metrics[0][f'{key}_classes'],
            *(
                '{:.2f} ({:.2f} to {:.2f})'.format(
                    *(100 * value for value in (m[key], *i[key]))
                )
                if key in i
                else '-'
                for m, i in zip(metrics, found, strict=True)
            ),
        ]
        for key in ('AP', *(group.key for group in validation.groups))
    ]
    compared = [
        [key, *(str(of_detector[key]) for of_detector in to_first[1:])]
        for key in to_first[0]
    ]
    console, truth = table_console(), validation.ground_truth
    title = f'{validation.iou_type}, in percent'
    console.print(make_table(['mean', 'classes', *results], means, title))
    title = f'difference to {first}, in percentage points'
    console.print(make_table(['mean', *others], compared, title))
    print(
        f'In brackets: {100 * bootstrap.confidence:g} % of '
        f'{bootstrap.repeats} draws of the {len(truth.images):,} images; * '
        'excludes 0.'
    )
    if not any(d.is_clear for found in to_first for d in found.values()):
        print(f'No difference to {first} is larger than its interval.')
    if json_file is not None:
        named = partial(with_prefix, AP_PREFIX, validation.iou_type)
        content = {
            'annotations': truth.source,
            'bootstrap': asdict(bootstrap),
            'detectors': [
                {
                    'results': str(path),
                    'name': name,
                    'metrics': named(metrics[k]),
                    'warnings': list(filter(None, [several[k].spec.warning])),
                    'intervals': named(found[k]),
                    'difference_to_first': named(to_first[k]),
                }
                for k, (name, path) in enumerate(results.items())
            ],
        }
        text = json.dumps(content, indent=1, default=asdict)
        write_atomic(json_file, text + '\n')
        print(f'figures: {json_file}')
    if picture is not None:
        figure = plot_class_ap(evaluations)
        write_atomic(picture, figure_bytes(figure, picture))
        print(f'plot: {picture}')
    return evaluations


def name_detectors(
    paths: Sequence[str | Path], names: Sequence[str] | None = None
) -> list[str]:
    """Return one name per detector.

    Args:
        paths (Sequence[str | Path]): Result files, checkpoints or work
            directories.
        names (Sequence[str], optional): Names to use. None takes the stems
            of files, but the folders of the checkpoints of a training
            (epoch_12.pth), the paths if those are equal, or numbers if the
            paths are equal, too.

    Raises:
        LongTailError: If the number of names is wrong, or two are equal.
    """
    if names is not None:
        check(
            len(names) == len({*names}) == len(paths),
            f'--names: expected {len(paths)} different names, one per '
            f'detector, found {" ".join(names)}',
        )
        return list(names)
    stems = [_stem(Path(path)) for path in paths]
    numbered = [f'{i} {stem}' for i, stem in enumerate(stems, 1)]
    candidates = [stems, [*map(str, paths)], numbered]
    return next(c for c in candidates if len(set(c)) == len(c))


def _stem(path: Path) -> str:
    """Return the part of a path that names a detector."""
    if path.is_dir():
        return path.resolve().name
    if re.match(r'(epoch|iter|best)_', path.name):
        return path.resolve().parent.name
    return path.name.partition('.')[0]


def with_prefix(
    prefix: str, iou_type: str, values: Mapping[str, Any]
) -> dict[str, Any]:
    """Name metrics like mmengine's evaluator: frequency_group/bbox_AP."""
    return {f'{prefix}/{iou_type}_{key}': v for key, v in values.items()}

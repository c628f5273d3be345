"""Evaluation and comparison of result files, without torch and mmdet."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.evaluation.functional import (
    UNLIMITED,
    Detections,
    Difference,
    Evaluation,
    EvaluationSpec,
    GroundTruth,
    Interval,
    bootstrap_means,
    differences,
    evaluate,
    intervals,
    is_classification_error,
    mean,
    write_per_class_file,
)
from mmdet_longtail.evaluation.functional.proposal_recall import (
    proposal_recall,
)
from mmdet_longtail.evaluation.functional.spec import (
    AP_PREFIX,
    DETECTIONS_PER_CLASS,
    FIXED_AP_PREFIX,
    PROPOSAL_PREFIX,
)
from mmdet_longtail.structures.class_statistics import (
    ClassGroup,
    ClassStatistics,
    check_bin_edges,
    pool,
)
from mmdet_longtail.utils.class_names import check_counted_classes
from mmdet_longtail.utils.console import table_console
from mmdet_longtail.utils.fileio import write_atomic
from mmdet_longtail.utils.tables import make_table, table_text
from mmdet_longtail.visualization.class_ap import plot_class_ap
from mmdet_longtail.visualization.figures import figure_bytes


@dataclass(frozen=True, eq=False)
class ValidationSet:
    """A validation set, and how detections of it are evaluated.

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
        max_detections: int | None = None,
        back_end: str = 'fast',
    ) -> 'ValidationSet':
        """Load the annotations and group the classes.

        Args:
            ann_file (str): COCO or LVIS annotations.
            iou_type (str): 'bbox' or 'segm'.
            statistics (ClassStatistics, optional): Counts of the training
                set; None makes no groups.
            bin_edges (Sequence[float], optional): Groups by count instead of
                rare, common, frequent, and rare and common together.
            bin_by (str): The count that ``bin_edges`` splits,
                'instance_count' or 'image_count'.
            annotation_format (str, optional): 'lvis' or 'coco'; None decides
                by the content of the file.
            max_detections (int, optional): See `EvaluationSpec`.
            back_end (str): See `EvaluationSpec`.

        Raises:
            LongTailError: A file is missing or broken, or the counts are of
                other classes.
        """
        if bin_edges is not None:
            check_bin_edges(bin_edges)
        truth = GroundTruth.load(ann_file, (iou_type,), annotation_format)
        groups: list[ClassGroup] = []
        if statistics is not None:
            check_counted_classes(truth, statistics)
            if bin_edges is not None:
                groups = statistics.bin_groups(bin_edges, bin_by)
            else:
                groups = statistics.frequency_groups()
                groups.append(pool(groups[:2]))
        return cls(
            truth, iou_type, statistics, groups, max_detections, back_end
        )

    def make_spec(self, results: str | Path) -> EvaluationSpec:
        """Load a COCO result file and specify its evaluation.

        Raises:
            LongTailError: The file is missing, broken, or of other images or
                classes.
        """
        return EvaluationSpec(
            self.ground_truth,
            Detections.load(results, self.ground_truth, self.iou_type),
            self.max_detections,
            self.back_end,
        )

    def checked_share(self) -> float | None:
        """Compute the mean share of the classes that an image is checked for.

        Returns:
            float | None: In 0..1, None for a set that is not federated.
        """
        truth = self.ground_truth
        if truth.rules == 'coco':
            return None
        found = set(zip(truth.image.tolist(), truth.label.tolist()))
        absent = sum(len(i['neg_category_ids']) for i in truth.images)
        return (len(found) + absent) / (len(truth.images) * truth.num_classes)


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """Settings of the bootstrap over images, see `bootstrap_means`.

    Args:
        repeats (int): Number of draws.
        seed (int): Random seed of the draws.
        confidence (float): Share of the draws inside an interval, 0..1.
        console (Console, optional): Console for a progress bar.
    """

    repeats: int = 200
    seed: int = 0
    confidence: float = 0.95
    console: Console | None = None

    def settings(self) -> dict[str, float]:
        """Return the settings for a JSON file."""
        return {
            'repeats': self.repeats,
            'seed': self.seed,
            'confidence': self.confidence,
        }

    def means(self, evaluations: Sequence[Evaluation]) -> list[dict]:
        """Compute the means of several detectors on drawn images."""
        return bootstrap_means(
            evaluations, self.repeats, self.seed, self.console
        )

    def intervals(self, evaluation: Evaluation) -> dict[str, Interval]:
        """Compute the intervals of one detector's means."""
        [means] = self.means([evaluation])
        return intervals(evaluation, means, self.confidence)


@dataclass(frozen=True, eq=False)
class FileEvaluation:
    """The evaluation of one result file.

    Args:
        evaluations (dict[str, Evaluation]): By the prefix of their metrics:
            'frequency_group', and on demand 'fixed_ap'.
        metrics (dict[str, float]): All metrics, under the names of mmengine's
            evaluator: frequency_group/bbox_AP.
        intervals (dict[str, Interval]): Intervals of some metrics.
        tables (list[str]): The metrics as text.
        num_detections (int): Number of detections in the file.
        num_errors (int): Number of classification errors that were dropped.
    """

    evaluations: dict[str, Evaluation]
    metrics: dict[str, float]
    intervals: dict[str, Interval]
    tables: list[str]
    num_detections: int
    num_errors: int


def evaluate_file(
    results: str | Path,
    validation: ValidationSet,
    *,
    fixed_ap: bool = False,
    recall: bool = False,
    without_confusions: bool = False,
    bootstrap: Bootstrap | None = None,
) -> FileEvaluation:
    """Evaluate a result file by rare, common and frequent classes.

    Args:
        results (str | Path): A COCO result file.
        validation (ValidationSet): The annotations, the groups and the rules.
        fixed_ap (bool): Whether to compute AP-Fixed, see `FixedAPMetric`.
        recall (bool): Whether to compute the recall of class-agnostic
            detections, see `ProposalRecallMetric`.
        without_confusions (bool): Whether to drop detections on an object of
            another class, to measure their effect.
        bootstrap (Bootstrap, optional): Settings of the intervals; None
            computes none.

    Raises:
        LongTailError: The file is missing, broken, or of other images or
            classes.
    """
    spec = validation.make_spec(results)
    num_detections, num_errors = len(spec.detections), 0
    if without_confusions:
        is_error = is_classification_error(spec)
        num_errors = int(is_error.sum())
        kept = spec.detections.take(np.flatnonzero(~is_error))
        spec = replace(spec, detections=kept)
    specs = {AP_PREFIX: spec}
    if fixed_ap:
        best = spec.detections.best_per_class(DETECTIONS_PER_CLASS)
        specs[FIXED_AP_PREFIX] = replace(
            spec, detections=best, max_detections=UNLIMITED
        )
    evaluations: dict[str, Evaluation] = {}
    metrics: dict[str, float] = {}
    found: dict[str, Interval] = {}
    tables = []
    for prefix, its_spec in specs.items():
        evaluation = evaluate(its_spec, validation.groups)
        its_intervals = bootstrap.intervals(evaluation) if bootstrap else None
        evaluations[prefix] = evaluation
        metrics |= with_prefix(prefix, spec.iou_type, evaluation.metrics())
        found |= with_prefix(prefix, spec.iou_type, its_intervals or {})
        tables.append(f'{prefix}\n{evaluation.table(its_intervals)}')
    if recall:
        values = proposal_recall(spec, validation.groups)
        metrics |= with_prefix(PROPOSAL_PREFIX, spec.iou_type, values)
        rows = [(key, f'{value:.4f}') for key, value in values.items()]
        table = make_table(('mean', 'value'), rows, 'proposal recall')
        tables.append(table_text(table))
    return FileEvaluation(
        evaluations, metrics, found, tables, num_detections, num_errors
    )


def show_evaluation(
    results: str | Path,
    validation: ValidationSet,
    *,
    bootstrap: Bootstrap | None = None,
    per_class_file: str | Path | None = None,
    json_file: str | Path | None = None,
    **options: bool,
) -> FileEvaluation:
    """Print and write the evaluation of a result file.

    Args:
        results (str | Path): A COCO result file.
        validation (ValidationSet): The annotations, the groups and the rules.
        bootstrap (Bootstrap, optional): Settings of the intervals.
        per_class_file (str | Path, optional): CSV file to write AP, recall,
            counts and confusions per class to.
        json_file (str | Path, optional): File to write the metrics to.
        **options (bool): Further options of `evaluate_file`.

    Raises:
        LongTailError: See `evaluate_file`; or an output cannot be written.
    """
    evaluated = evaluate_file(
        results, validation, bootstrap=bootstrap, **options
    )
    truth = validation.ground_truth
    print(
        f'{results}: {evaluated.num_detections:,} detections in '
        f'{len(truth.images):,} images, by the rules of {truth.rules.upper()}'
    )
    if options.get('without_confusions'):
        print(f'{evaluated.num_errors:,} lie on an object of another class')
    share = validation.checked_share()
    if share is not None:
        print(f'An image was checked for {share:.1%} of the classes.')
    if evaluated.num_errors == evaluated.num_detections:
        print('No detections: AP is 0 for every class with objects.')
    for table in evaluated.tables:
        print(f'\n{table}')
    if per_class_file is not None:
        evaluation = evaluated.evaluations[AP_PREFIX]
        write_per_class_file(
            per_class_file,
            {validation.iou_type: evaluation},
            validation.statistics,
        )
        print(f'classes: {per_class_file}')
    if json_file is not None:
        write_metrics(
            json_file,
            evaluated.metrics,
            evaluated.intervals,
            bootstrap,
            results=str(results),
            annotations=truth.source,
        )
        print(f'metrics: {json_file}')
    return evaluated


def write_metrics(
    path: str | Path,
    metrics: Mapping[str, Any],
    intervals: Mapping[str, Interval],
    bootstrap: Bootstrap | None,
    **more: Any,
) -> None:
    """Write metrics and their intervals as JSON.

    Args:
        path (str | Path): File to write.
        metrics (Mapping[str, Any]): By the names of mmengine's evaluator,
            such as frequency_group/bbox_AP.
        intervals (Mapping[str, Interval]): Low and high of some metrics.
        bootstrap (Bootstrap, optional): Settings of the intervals.
        **more: Further entries.
    """
    content = more | {'metrics': dict(metrics)}
    if bootstrap is not None:
        content['bootstrap'] = bootstrap.settings() | {
            'intervals': {name: list(i) for name, i in intervals.items()}
        }
    write_atomic(path, json.dumps(content, indent=1) + '\n')


@dataclass(frozen=True, eq=False)
class Comparison:
    """Several detectors on one validation set, the first as the reference.

    Args:
        evaluations (dict[str, Evaluation]): By name of the detector.
        intervals (list[dict[str, Interval]]): Per detector, by mean.
        differences (list[dict[str, Difference]]): Per detector, to the first.
    """

    evaluations: dict[str, Evaluation]
    intervals: list[dict[str, Interval]]
    differences: list[dict[str, Difference]]

    def tables(self) -> list[Table]:
        """Build a table of the means, and one of the differences."""
        [first, *others] = self.evaluations
        values = [e.per_class_values() for e in self.evaluations.values()]
        groups = self.evaluations[first].groups
        means = [
            [key, np.isfinite(values[0][key]).sum()]
            + [
                f'{mean(v[key]):.4f} ({i[key][0]:.4f} to {i[key][1]:.4f})'
                if key in i
                else '-'
                for v, i in zip(values, self.intervals, strict=True)
            ]
            for key in ('AP', *(group.key for group in groups))
        ]
        compared = [
            [key, *(str(d[key]) for d in self.differences[1:])]
            for key in self.differences[0]
        ]
        return [
            make_table(['mean', 'classes', *self.evaluations], means),
            make_table(['mean', *others], compared, f'difference to {first}'),
        ]

    def figures(self) -> list[dict[str, Any]]:
        """Return metrics, intervals and differences per detector, for JSON."""
        return [
            {'name': name}
            | {
                key: with_prefix(AP_PREFIX, evaluation.spec.iou_type, values)
                for key, values in (
                    ('metrics', evaluation.metrics()),
                    ('intervals', its_intervals),
                    (
                        'difference_to_first',
                        {mean: asdict(d) for mean, d in to_first.items()},
                    ),
                )
            }
            for (name, evaluation), its_intervals, to_first in zip(
                self.evaluations.items(),
                self.intervals,
                self.differences,
                strict=True,
            )
        ]


def show_comparison(
    results: Mapping[str, str | Path],
    validation: ValidationSet,
    bootstrap: Bootstrap | None = None,
    *,
    json_file: str | Path | None = None,
    picture: str | Path | None = None,
) -> Comparison:
    """Print, write and plot the comparison of result files.

    Args:
        results (Mapping[str, str | Path]): See `compare_files`.
        validation (ValidationSet): See `compare_files`.
        bootstrap (Bootstrap, optional): See `compare_files`.
        json_file (str | Path, optional): File to write all figures to.
        picture (str | Path, optional): File to plot the AP of each class
            against that of the first detector to.

    Raises:
        LongTailError: See `compare_files`; or an output cannot be written.
    """
    bootstrap = bootstrap or Bootstrap()
    comparison = compare_files(results, validation, bootstrap)
    for name, evaluation in comparison.evaluations.items():
        if not len(evaluation.spec.detections):
            print(f'{results[name]}: no detections, AP is 0 for every class.')
    truth = validation.ground_truth
    for table in comparison.tables():
        table_console().print(table)
    print(
        f'In brackets: {100 * bootstrap.confidence:g} % of '
        f'{bootstrap.repeats} draws of the {len(truth.images):,} images; * '
        'excludes 0.'
    )
    if json_file is not None:
        content = {
            'annotations': truth.source,
            'bootstrap': bootstrap.settings(),
            'detectors': [
                {'results': str(path)} | figures
                for path, figures in zip(
                    results.values(), comparison.figures(), strict=True
                )
            ],
        }
        write_atomic(json_file, json.dumps(content, indent=1) + '\n')
        print(f'figures: {json_file}')
    if picture is not None:
        figure = plot_class_ap(comparison.evaluations)
        write_atomic(picture, figure_bytes(figure, picture))
        print(f'plot: {picture}')
    return comparison


def compare_files(
    results: Mapping[str, str | Path],
    validation: ValidationSet,
    bootstrap: Bootstrap | None = None,
) -> Comparison:
    """Compare result files with the first, paired by drawn images.

    Args:
        results (Mapping[str, str | Path]): COCO result files by the name of
            their detector.
        validation (ValidationSet): The annotations, the groups and the rules.
        bootstrap (Bootstrap, optional): Settings of the intervals.

    Raises:
        LongTailError: A file is missing, broken, or of other images or
            classes.
    """
    bootstrap = bootstrap or Bootstrap()
    evaluations = {
        name: evaluate(validation.make_spec(path), validation.groups)
        for name, path in results.items()
    }
    several = list(evaluations.values())
    means = bootstrap.means(several)
    return Comparison(
        evaluations,
        [
            intervals(evaluation, its_means, bootstrap.confidence)
            for evaluation, its_means in zip(several, means, strict=True)
        ],
        differences(several, means, bootstrap.confidence),
    )


def name_detectors(
    paths: Sequence[str | Path], names: Sequence[str] | None = None
) -> list[str]:
    """Return one name per detector.

    Args:
        paths (Sequence[str | Path]): Result files, checkpoints or work
            directories.
        names (Sequence[str], optional): Names to use. None takes the stems
            of result files and the folders of checkpoints, the paths if those
            are equal, or numbers if the paths are equal, too.

    Raises:
        LongTailError: If the number of names is wrong, or two are equal.
    """
    if names is None:
        stems = [
            path.name.partition('.')[0]
            if path.suffix == '.json'
            else (path if path.is_dir() else path.parent).resolve().name
            for path in map(Path, paths)
        ]
        numbered = [f'{i} {stem}' for i, stem in enumerate(stems, 1)]
        candidates = [stems, [*map(str, paths)], numbered]
        return next(c for c in candidates if len(set(c)) == len(c))
    if len(names) != len(paths) or len(set(names)) != len(paths):
        raise LongTailError(
            f'--names: expected {len(paths)} different names, one per '
            f'detector, found {" ".join(names)}'
        )
    return list(names)


def with_prefix(
    prefix: str | None, iou_type: str, values: Mapping[str, Any]
) -> dict[str, Any]:
    """Name metrics like mmengine's evaluator: frequency_group/bbox_AP."""
    return {f'{prefix}/{iou_type}_{key}': v for key, v in values.items()}

"""Average precision of each class and its means, from detections."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from mmdet_longtail.evaluation.functional.back_ends import (
    BACK_ENDS,
    IOU_THRESHOLDS,
    Curves,
)
from mmdet_longtail.evaluation.functional.confusions import (
    BACKGROUND,
    NOT_COUNTED,
    confusions,
    seen_as,
)
from mmdet_longtail.evaluation.functional.detections import Detections
from mmdet_longtail.evaluation.functional.ground_truth import GroundTruth
from mmdet_longtail.structures.class_statistics import (
    ClassGroup,
    ClassStatistics,
)
from mmdet_longtail.utils.fileio import write_atomic

MAX_DETECTIONS = {'coco': 100, 'lvis': 300}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Detections and how good they are.

    Args:
        ground_truth (GroundTruth): The validation set.
        detections (Detections): What was found in it.
        iou_type (str): 'bbox' or 'segm'.
        groups (Sequence[ClassGroup]): The groups that get a mean of their
            own.
        max_detections (int): How many detections counted, see `evaluate`.
        class_ap (dict[str, np.ndarray]): Under AP, AP50, AP75, APs, APm and
            APl, in this order: (C,) in 0..1, NaN where a class has no object
            to find.
        class_recall (np.ndarray): (C,) share of the objects found at an IoU
            of 0.5, NaN where there are none.
    """

    ground_truth: GroundTruth
    detections: Detections
    iou_type: str
    groups: Sequence[ClassGroup]
    max_detections: int
    class_ap: dict[str, np.ndarray]
    class_recall: np.ndarray

    def behind_means(self) -> dict[str, np.ndarray]:
        """Give the values of the classes behind each mean, in order."""
        ap = self.class_ap['AP']
        return self.class_ap | {
            group.key: ap[group.members] for group in self.groups
        }

    def metrics(self) -> dict[str, float]:
        """Give the means, and the number of classes behind each.

        Returns:
            dict[str, float]: AP, AP50, AP75, APs, APm, APl and the groups'
            AP in 0..1, -1 over no class; then ``<mean>_classes``, and
            ``classes_without_instances``.
        """
        behind = self.behind_means()
        metrics: dict[str, float] = {
            name: mean(values) for name, values in behind.items()
        }
        for name, values in behind.items():
            metrics[f'{name}_classes'] = int(np.isfinite(values).sum())
        absent = int(np.isnan(self.class_ap['AP']).sum())
        return metrics | {'classes_without_instances': absent}

    def table(
        self, intervals: Mapping[str, tuple[float, float]] | None = None
    ) -> str:
        """Draw the means as text.

        Args:
            intervals (Mapping, optional): Of some means, for a column more.
        """
        table = Table(title=self.iou_type, box=box.SIMPLE)
        table.add_column('mean')
        for heading in ('value', 'classes', 'without instances'):
            table.add_column(heading, justify='right')
        if intervals is not None:
            table.add_column('interval')
        for name, values in self.behind_means().items():
            cells = [
                name,
                f'{mean(values):.4f}',
                str(np.isfinite(values).sum()),
                str(np.isnan(values).sum()),
            ]
            if intervals is not None and name in intervals:
                low, high = intervals[name]
                cells.append(f'{low:.4f} to {high:.4f}')
            table.add_row(*cells)
        text = io.StringIO()
        Console(file=text, width=79).print(table)
        return text.getvalue()

    def per_class(self) -> dict[str, Iterable]:
        """Give the columns of a table with one row a class.

        Returns:
            dict[str, Iterable]: AP, AP50 and recall (at an IoU of 0.5), ''
            where there is no object; ground_truths and detections; then how
            many objects were found, confused with another class or taken for
            background (see `seen_as`), and the three classes that they were
            most often taken for.
        """
        truth = self.ground_truth
        C = truth.num_classes
        names = truth.class_names
        label, taken_for = (
            truth.label,
            seen_as(truth, self.detections, self.iou_type),
        )
        is_counted = taken_for != NOT_COUNTED

        def count(chosen: np.ndarray) -> list[int]:
            return np.bincount(
                label[chosen & is_counted], minlength=C
            ).tolist()

        top = confusions(label, taken_for, C)
        return {
            'AP': _cells(self.class_ap['AP']),
            'AP50': _cells(self.class_ap['AP50']),
            'recall': _cells(self.class_recall),
            'ground_truths': count(is_counted),
            'detections': np.bincount(
                self.detections.label, minlength=C
            ).tolist(),
            'found': count(taken_for == label),
            'confused': count((taken_for >= 0) & (taken_for != label)),
            'background': count(taken_for == BACKGROUND),
            'confused_with': [
                '; '.join(f'{names[k]} {number}' for k, number in pairs)
                for pairs in top
            ],
        }


def evaluate(
    ground_truth: GroundTruth,
    detections: Detections,
    iou_type: str,
    groups: Sequence[ClassGroup] = (),
    max_detections: int | None = None,
    back_end: str = 'fast',
) -> Evaluation:
    """Evaluate detections by the rules of their validation set.

    Args:
        ground_truth (GroundTruth): The validation set.
        detections (Detections): What was found in it.
        iou_type (str): 'bbox' or 'segm'.
        groups (Sequence[ClassGroup]): From
            `ClassStatistics.frequency_groups` or ``bin_groups``.
        max_detections (int, optional): The best detections that count: of an
            image by LVIS's rules (default 300), of an image and class by
            COCO's (default 100).
        back_end (str): A key of `BACK_ENDS`.
    """
    limit = max_detections or MAX_DETECTIONS[ground_truth.rules]
    if ground_truth.rules == 'lvis':
        detections = detections.best_of_each_image(limit)
    curves = BACK_ENDS[back_end](ground_truth, detections, iou_type, limit)
    recall = curves.recall[0, :, 0]
    return Evaluation(
        ground_truth=ground_truth,
        detections=detections,
        iou_type=iou_type,
        groups=groups,
        max_detections=limit,
        class_ap=average_precisions(curves),
        class_recall=np.where(recall == -1, np.nan, recall),
    )


def write_per_class_file(
    path: str | Path,
    evaluations: Mapping[str, Evaluation],
    statistics: ClassStatistics | None,
) -> None:
    """Write what is known of each class as CSV, one line a class.

    Args:
        path (str | Path): File to write.
        evaluations (Mapping[str, Evaluation]): By IoU type, of one
            validation set; at least one.
        statistics (ClassStatistics, optional): Counts of the training set.
            None leaves out counts and groups.
    """
    [first, *_] = evaluations.values()
    columns: dict[str, Iterable[Any]] = {
        'name': first.ground_truth.class_names
    }
    if statistics is not None:
        group_names = np.full(statistics.num_classes, '', dtype=object)
        # A class in two groups has the name of the first.
        for group in reversed(first.groups):
            group_names[group.members] = group.name
        columns = {
            'name': statistics.class_names,
            'image_count': statistics.image_count,
            'instance_count': statistics.instance_count,
            'group': group_names,
        }
    for iou_type, evaluation in evaluations.items():
        for name, column in evaluation.per_class().items():
            columns[f'{iou_type}_{name}'] = column
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    write_atomic(path, text.getvalue())


def average_precisions(curves: Curves) -> dict[str, np.ndarray]:
    """Average precision of each class.

    Args:
        curves (Curves): From a back end.

    Returns:
        dict[str, np.ndarray]: Under AP (mean over the IoU thresholds), AP50,
        AP75, APs, APm and APl, in this order: (C,) in 0..1, NaN where a class
        has no object to find.
    """
    everywhere, small, medium, large = np.moveaxis(curves.precision, 3, 0)
    selected = {
        'AP': everywhere,  # (T, R, C)
        'AP50': everywhere[np.isclose(IOU_THRESHOLDS, 0.5)],
        'AP75': everywhere[np.isclose(IOU_THRESHOLDS, 0.75)],
        'APs': small,
        'APm': medium,
        'APl': large,
    }
    return {
        name: np.where(
            (values == -1).any(axis=(0, 1)), np.nan, values.mean(axis=(0, 1))
        )
        for name, values in selected.items()
    }


def mean(values: np.ndarray) -> float:
    """Mean over the classes that have objects to find.

    Args:
        values (np.ndarray): (C,), NaN for a class without objects.

    Returns:
        float: In 0..1, or -1 when no class has objects, as in both libraries.
    """
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else -1.0


def _cells(values: np.ndarray) -> list:
    return ['' if np.isnan(value) else value for value in values.tolist()]

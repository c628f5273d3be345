"""Average precision per class, its means, and the recall of proposals."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mmdet_longtail.evaluation.functional.back_ends import (
    AREAS,
    BACK_ENDS,
    IOU_THRESHOLDS,
)
from mmdet_longtail.evaluation.functional.detections import EvaluationSpec
from mmdet_longtail.evaluation.functional.ground_truth import GroundTruth
from mmdet_longtail.evaluation.functional.matching import (
    BACKGROUND,
    IGNORED,
    predicted_labels,
)
from mmdet_longtail.structures.class_statistics import (
    ClassGroup,
    ClassStatistics,
)
from mmdet_longtail.utils.tables import (
    make_frame,
    make_table,
    table_text,
    write_csv,
)

PROPOSALS = (100, 300, 1000)
MEANS = ('AP', 'AP50', 'AP75', 'APs', 'APm', 'APl')


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The average precision of detections.

    Args:
        spec (EvaluationSpec): The detections that were evaluated.
        groups (Sequence[ClassGroup]): Groups with a mean of their own.
        class_ap (dict[str, np.ndarray]): Under AP, AP50, AP75, APs, APm and
            APl, in this order: (C,) in 0..1, NaN for a class without objects.
        class_recall (np.ndarray): (C,) recall at an IoU of 0.5, NaN for a
            class without objects.
    """

    spec: EvaluationSpec
    groups: Sequence[ClassGroup]
    class_ap: dict[str, np.ndarray]
    class_recall: np.ndarray

    def per_class_values(self) -> dict[str, np.ndarray]:
        """Return the values per class behind each mean, in order."""
        ap = self.class_ap['AP']
        members = {group.key: group.members for group in self.groups}
        return self.class_ap | {key: ap[m] for key, m in members.items()}

    def means(self) -> dict[str, float]:
        """Compute AP, AP50 and so on, and the groups' AP: 0..1, or -1."""
        return {k: mean(v) for k, v in self.per_class_values().items()}

    def metrics(self) -> dict[str, float]:
        """Compute the means, then ``<mean>_classes`` behind each.

        The last is ``classes_without_instances``.
        """
        numbers = {
            f'{name}_classes': int(np.isfinite(values).sum())
            for name, values in self.per_class_values().items()
        }
        absent = int(np.isnan(self.class_ap['AP']).sum())
        numbers['classes_without_instances'] = absent
        return self.means() | numbers

    def table(
        self, intervals: Mapping[str, tuple[float, float]] | None = None
    ) -> str:
        """Render the means in percent, with intervals of some of them."""
        headings = ['mean', 'value', 'classes', 'without instances']
        if intervals is not None:
            headings.append('interval')
        rows = []
        for name, values in self.per_class_values().items():
            present = int(np.isfinite(values).sum())
            absent = len(values) - present
            value = f'{100 * mean(values):.2f}' if present else '-'
            row = [name, value, present, absent]
            if intervals is not None and name in intervals:
                low, high = intervals[name]
                row.append(f'{100 * low:.2f} to {100 * high:.2f}')
            rows.append(row)
        title = f'{self.spec.iou_type}, in percent'
        return table_text(make_table(headings, rows, title))

    def per_class(self) -> dict[str, Iterable]:
        """Return the columns of a table with one row per class.

        Returns:
            dict[str, Iterable]: AP, AP50 and recall (at an IoU of 0.5), NaN
            for a class without objects; ground_truths and detections; then
            the number of objects that were found, confused with another class
            or taken for background (see `predicted_labels`), and the three
            most frequent confusions.
        """
        truth = self.spec.ground_truth
        C, label, names = truth.num_classes, truth.label, truth.class_names
        predicted = predicted_labels(self.spec)
        is_confused = (predicted >= 0) & (predicted != label)
        pairs = zip(label[is_confused], predicted[is_confused])
        confusions: list[list[str]] = [[] for _ in names]
        for (own, other), number in Counter(pairs).most_common():
            confusions[own].append(f'{names[other]} {number}')

        def count(labels: np.ndarray) -> list[int]:
            return np.bincount(labels, minlength=C).tolist()

        return {
            'AP': self.class_ap['AP'],
            'AP50': self.class_ap['AP50'],
            'recall': self.class_recall,
            'ground_truths': count(label[predicted != IGNORED]),
            'detections': count(self.spec.detections.label),
            'found': count(label[predicted == label]),
            'confused': count(label[is_confused]),
            'background': count(label[predicted == BACKGROUND]),
            'confused_with': ['; '.join(most[:3]) for most in confusions],
        }

    def to_frame(self, statistics: ClassStatistics | None = None) -> Any:
        """Return the table of classes as a pandas DataFrame.

        It has the columns of `write_per_class_file`, and one row per class.

        Args:
            statistics (ClassStatistics, optional): Counts of the training
                set. None leaves out counts and groups.

        Raises:
            LongTailError: If pandas is not installed.
        """
        evaluations = {self.spec.iou_type: self}
        return make_frame(per_class_columns(evaluations, statistics))


def evaluate(
    spec: EvaluationSpec, groups: Sequence[ClassGroup] = ()
) -> Evaluation:
    """Compute the average precision of detections, and of groups of classes.

    `ClassStatistics` makes groups: ``frequency_groups`` and ``bin_groups``.

    Examples:
        >>> from mmdet_longtail.evaluation.functional import Detections
        >>> validation = dict(
        ...     images=[dict(id=7, width=64, height=64)],
        ...     categories=[dict(id=1, name='dog'), dict(id=2, name='ibex')],
        ...     annotations=[
        ...         dict(image_id=7, category_id=1, bbox=[0, 0, 3, 3], area=9),
        ...         dict(image_id=7, category_id=2, bbox=[4, 0, 3, 3], area=9),
        ...     ],
        ... )
        >>> truth = GroundTruth(validation, 'val.json')
        >>> found = Detections(
        ...     image=np.array([0]),
        ...     label=np.array([0]),
        ...     score=np.array([0.9]),
        ...     box=np.array([[0.0, 0.0, 3.0, 2.0]]),
        ... )
        >>> spec = EvaluationSpec(truth, found)
        >>> evaluation = evaluate(spec)
        >>> evaluation.class_ap['AP50']
        array([1., 0.])
        >>> round(evaluation.means()['AP'], 2)
        0.2
        >>> round(proposal_recall(spec, proposals=[100])['AR@100'], 2)
        0.2
    """
    if spec.ground_truth.rules == 'lvis':
        best = spec.detections.best_per_image(spec.limit)
        spec = replace(spec, detections=best)
    curves = BACK_ENDS[spec.back_end](spec)
    everywhere, small, medium, large = np.moveaxis(curves.precision, 3, 0)
    at_50 = everywhere[np.isclose(IOU_THRESHOLDS, 0.5)]
    at_75 = everywhere[np.isclose(IOU_THRESHOLDS, 0.75)]
    selected = (everywhere, at_50, at_75, small, medium, large)  # (T, R, C)
    class_ap = {}
    for name, precision in zip(MEANS, selected, strict=True):
        ap = precision.mean(axis=(0, 1))
        # -1 at all thresholds is a class without objects.
        class_ap[name] = np.where(ap < 0, np.nan, ap)
    recall = curves.recall[0, :, 0]
    class_recall = np.where(recall < 0, np.nan, recall)
    return Evaluation(spec, groups, class_ap, class_recall)


def proposal_recall(
    spec: EvaluationSpec,
    groups: Sequence[ClassGroup] = (),
    proposals: Sequence[int] = PROPOSALS,
) -> dict[str, float]:
    """Compute the average recall of the best detections of any class.

    Keys such as AR@1000 are for each k of ``proposals``, rising; see
    `ProposalRecallMetric`. ``max_detections`` of the spec is ignored.
    """
    truth = spec.ground_truth
    label = np.zeros_like(spec.detections.label)
    detections = replace(spec.detections, label=label)

    def recall(members: np.ndarray, limit: int) -> list[float]:
        """Compute the recall of all, small, medium and large objects."""
        rows = np.flatnonzero(members[truth.label]).tolist()
        dataset = {
            'images': truth.images,
            'annotations': [
                dict(truth.annotations[row], category_id=1) for row in rows
            ],
            'categories': [{'id': 1, 'name': 'object'}],
        }
        # Recall does not depend on the classes an image was checked for.
        objects = GroundTruth(dataset, truth.source, 'coco')
        one_class = EvaluationSpec(objects, detections, limit)
        curves = BACK_ENDS[spec.back_end](one_class)
        # -1 at every threshold where there is no object.
        return curves.recall[:, 0].mean(0).tolist()

    every = np.ones(truth.num_classes, bool)
    metrics: dict[str, float] = {}
    for limit in proposals:
        metrics[f'AR@{limit}'], *by_size = recall(every, limit)
    for size, value in zip(AREAS[1:], by_size, strict=True):
        metrics[f'AR{size[0]}@{limit}'] = value
    for group in groups:
        name = group.key.replace('AP', 'AR', 1)
        metrics[f'{name}@{limit}'], *_ = recall(group.members, limit)
    return metrics


def per_class_columns(
    evaluations: Mapping[str, Evaluation],
    statistics: ClassStatistics | None,
) -> dict[str, Iterable[Any]]:
    """Return the columns of a table of classes, see `write_per_class_file`.

    Numbers that do not exist are NaN.
    """
    [first, *_] = evaluations.values()
    columns: dict[str, Iterable[Any]]
    if statistics is None:
        columns = {'name': first.spec.ground_truth.class_names}
    else:
        group_names = np.full(statistics.num_classes, '', dtype=object)
        # The first of several groups names a class.
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
    return columns


def write_per_class_file(
    path: str | Path,
    evaluations: Mapping[str, Evaluation],
    statistics: ClassStatistics | None,
) -> None:
    """Write a CSV file with one row per class.

    Evaluations are by IoU type, of one validation set; at least one. Without
    statistics of the training set the file has no counts and groups. A cell
    is empty for a class without objects.
    """
    columns = per_class_columns(evaluations, statistics)
    for name, column in columns.items():
        if isinstance(column, np.ndarray) and column.dtype == np.float64:
            columns[name] = [
                '' if np.isnan(value) else value for value in column.tolist()
            ]
    write_csv(path, columns)


def mean(values: np.ndarray) -> float:
    """Compute the mean over the classes that have objects, not NaN.

    -1 when no class has objects, as in lvis and pycocotools.

    Examples:
        >>> mean(np.array([0.25, 0.75, np.nan]))
        0.5
        >>> mean(np.array([np.nan]))
        -1.0
    """
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else -1.0

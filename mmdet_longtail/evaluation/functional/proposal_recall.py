"""Average recall of class-agnostic detections."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmdet_longtail.evaluation.functional.back_ends import AREAS, BACK_ENDS
from mmdet_longtail.evaluation.functional.ground_truth import GroundTruth
from mmdet_longtail.evaluation.functional.spec import EvaluationSpec
from mmdet_longtail.structures.class_statistics import ClassGroup

PROPOSALS = (100, 300, 1000)


def proposal_recall(
    spec: EvaluationSpec,
    groups: Sequence[ClassGroup] = (),
    proposals: Sequence[int] = PROPOSALS,
) -> dict[str, float]:
    """Compute the average recall of the best detections of any class.

    Args:
        spec (EvaluationSpec): The detections. ``max_detections`` is ignored.
        groups (Sequence[ClassGroup]): From
            `ClassStatistics.frequency_groups` or ``bin_groups``.
        proposals (Sequence[int]): Each k, rising.

    Returns:
        dict[str, float]: See `ProposalRecallMetric`, keys such as AR@1000.
    """
    truth = spec.ground_truth
    detections = spec.detections.class_agnostic()

    def recall(members: np.ndarray, limit: int) -> list[float]:
        """Compute the recall of all, small, medium and large objects."""
        objects = as_one_class(truth, members)
        one_class = EvaluationSpec(objects, detections, limit)
        curves = BACK_ENDS[spec.back_end](one_class)
        # -1 at every threshold where there is no object.
        return curves.recall[:, 0].mean(0).tolist()

    every = np.ones(truth.num_classes, bool)
    metrics: dict[str, float] = {}
    for limit in proposals:
        by_size = recall(every, limit)
        metrics[f'AR@{limit}'] = by_size[0]
    for size, value in zip(AREAS[1:], by_size[1:], strict=True):
        metrics[f'AR{size[0]}@{limit}'] = value
    for group in groups:
        name = group.key.replace('AP', 'AR', 1)
        metrics[f'{name}@{limit}'] = recall(group.members, limit)[0]
    return metrics


def as_one_class(
    ground_truth: GroundTruth, members: np.ndarray
) -> GroundTruth:
    """Replace the objects of some classes by objects of one class.

    Args:
        ground_truth (GroundTruth): The validation set.
        members (np.ndarray): (C,) bool, the classes.

    Returns:
        GroundTruth: The same images, by COCO's rules: recall does not depend
        on the classes that an image was checked for.
    """
    annotations = [
        dict(annotation, category_id=1)
        for annotation, label in zip(
            ground_truth.annotations, ground_truth.label.tolist()
        )
        if members[label]
    ]
    dataset = {
        'images': ground_truth.images,
        'annotations': annotations,
        'categories': [{'id': 1, 'name': 'object'}],
    }
    return GroundTruth(dataset, ground_truth.source, 'coco')

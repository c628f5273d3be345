"""Average recall of class-agnostic detections."""

from collections.abc import Sequence
from dataclasses import replace

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

    Keys such as AR@1000 are for each k of ``proposals``, rising; see
    `ProposalRecallMetric`. ``max_detections`` of the spec is ignored.
    """
    truth = spec.ground_truth
    label = np.zeros_like(spec.detections.label)
    detections = replace(spec.detections, label=label)

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
        metrics[f'AR@{limit}'], *by_size = recall(every, limit)
    for size, value in zip(AREAS[1:], by_size, strict=True):
        metrics[f'AR{size[0]}@{limit}'] = value
    for group in groups:
        name = group.key.replace('AP', 'AR', 1)
        metrics[f'{name}@{limit}'], *_ = recall(group.members, limit)
    return metrics


def as_one_class(
    ground_truth: GroundTruth, members: np.ndarray
) -> GroundTruth:
    """Replace the objects of some classes (C,) by objects of one class.

    The result is by COCO's rules: recall does not depend on the classes that
    an image was checked for.
    """
    rows = np.flatnonzero(members[ground_truth.label]).tolist()
    dataset = {
        'images': ground_truth.images,
        'annotations': [
            dict(ground_truth.annotations[row], category_id=1) for row in rows
        ],
        'categories': [{'id': 1, 'name': 'object'}],
    }
    return GroundTruth(dataset, ground_truth.source, 'coco')

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmdet.registry import METRICS
from mmengine.logging import MMLogger

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.evaluation.functional.back_ends import AREAS, BACK_ENDS
from mmdet_longtail.evaluation.functional.detections import Detections
from mmdet_longtail.evaluation.functional.ground_truth import GroundTruth
from mmdet_longtail.evaluation.functional.spec import EvaluationSpec
from mmdet_longtail.evaluation.metrics.frequency_group_metric import (
    FrequencyGroupMetric,
)
from mmdet_longtail.structures.class_statistics import ClassGroup

PROPOSALS = (100, 300, 1000)


@METRICS.register_module()
class ProposalRecallMetric(FrequencyGroupMetric):
    """Average recall of boxes or masks whatever their class: AR@k.

    The share of the objects that the k best proposals of their image cover,
    mean over the IoU thresholds .5, .55, ... .95. For every k there is
    ``AR@k``; for the largest, also by the size of the objects (ARs, ARm,
    ARl) and by the group of their class (ARr, ARc, ARf, or ``AR_<bin>``). A
    mean over no object is -1. Keys read ``proposal_recall/bbox_AR@1000``.

    Detections of a trained detector may stand in for proposals: their labels
    are not looked at. In a federated set the objects are those that are
    annotated.

    Args:
        proposals (Sequence[int]): Each k. Defaults to (100, 300, 1000).
        **kwargs: As for `FrequencyGroupMetric`, without ``max_detections``
            and ``per_class_file``.

    Raises:
        LongTailError: See `FrequencyGroupMetric`.

    Source: Hosang et al., What makes for effective detection proposals?,
    TPAMI 2016; COCO's AR.
    """

    default_prefix = 'proposal_recall'

    def __init__(
        self, *, proposals: Sequence[int] = PROPOSALS, **kwargs: Any
    ) -> None:
        if not proposals or min(proposals) < 1:
            raise LongTailError(
                f'ProposalRecallMetric: proposals is {proposals!r}, expected '
                'at least one number, each at least 1'
            )
        super().__init__(**kwargs)
        self.proposals = sorted(proposals)

    def evaluate_detections(
        self, ground_truth: GroundTruth, detections: Detections, iou_type: str
    ) -> dict[str, float]:
        """Evaluate one IoU type, and log the result."""
        spec = EvaluationSpec(ground_truth, detections, None, self.back_end)
        metrics = proposal_recall(spec, self.groups, self.proposals)
        MMLogger.get_current_instance().info(
            f'{iou_type}: '
            + ', '.join(f'{key} {value:.4f}' for key, value in metrics.items())
        )
        return metrics


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
        one_class = EvaluationSpec(objects, detections, limit, spec.back_end)
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
    """Take the objects of some classes for objects of one class.

    Args:
        ground_truth (GroundTruth): The validation set.
        members (np.ndarray): (C,) bool, the classes.

    Returns:
        GroundTruth: The same images, by COCO's rules: recall does not ask
        which classes an image was checked for.
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

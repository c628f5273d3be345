"""Average recall of proposals."""

from collections.abc import Sequence
from typing import Any

from mmdet.registry import METRICS
from mmengine.logging import MMLogger

from mmdet_longtail.errors import check
from mmdet_longtail.evaluation.functional import EvaluationSpec
from mmdet_longtail.evaluation.functional.average_precision import (
    PROPOSALS,
    proposal_recall,
)
from mmdet_longtail.evaluation.functional.detections import PROPOSAL_PREFIX
from mmdet_longtail.evaluation.metrics.detection_file_metric import (
    DetectionFileMetric,
)


@METRICS.register_module()
class ProposalRecallMetric(DetectionFileMetric):
    """Average recall of class-agnostic boxes or masks: AR@k.

    The share of the objects that the k best proposals of their image cover,
    mean over the IoU thresholds .5, .55, ... .95. For every k there is
    ``AR@k``; for the largest, also by the size of the objects (ARs, ARm,
    ARl) and by the group of their class (ARr, ARc, ARf, or ``AR_<bin>``). A
    mean over no object is -1. Keys read ``proposal_recall/bbox_AR@1000``.

    Detections of a trained detector may serve as proposals: their labels are
    ignored. In a federated set the objects are those that are annotated.

    Args:
        proposals (Sequence[int]): Each k. Defaults to (100, 300, 1000).
        **kwargs: As for `DetectionFileMetric`.

    Raises:
        LongTailError: See `DetectionFileMetric`.

    Source: Hosang et al., What makes for effective detection proposals?,
    TPAMI 2016; COCO's AR.

    Examples:
        >>> import torch
        >>> from mmdet_longtail.structures import ClassStatistics
        >>> MMLogger.get_current_instance().setLevel('ERROR')
        >>> metric = ProposalRecallMetric(proposals=(1, 2))
        >>> metric.dataset_meta = dict(classes=('dog', 'ibex'))
        >>> metric.set_class_statistics(
        ...     ClassStatistics(('dog', 'ibex'), [90, 2], [120, 3], 100, 91)
        ... )
        >>> box, other = [0.0, 0.0, 8.0, 8.0], [32.0, 32.0, 40.0, 40.0]
        >>> sample = dict(
        ...     img_id=7,
        ...     ori_shape=(64, 64),
        ...     instances=[dict(bbox=box, bbox_label=1)],
        ...     pred_instances=dict(
        ...         bboxes=torch.tensor([other, box]),
        ...         scores=torch.tensor([0.9, 0.8]),
        ...         labels=torch.tensor([0, 0]),
        ...     ),
        ... )
        >>> metric.process({}, [sample])
        >>> results = metric.evaluate(size=1)
        >>> results['proposal_recall/bbox_AR@1']
        0.0
        >>> results['proposal_recall/bbox_AR@2']
        1.0
    """

    default_prefix = PROPOSAL_PREFIX

    def __init__(
        self, *, proposals: Sequence[int] = PROPOSALS, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        check(
            proposals and min(proposals) >= 1,
            f'{self.name}: proposals is {proposals!r}, expected at least one '
            'number, each at least 1',
        )
        self.proposals = sorted(proposals)

    def value_names(self, groups: Sequence[str]) -> list[str]:
        """Return the names of `proposal_recall`."""
        of_size = ['ARs', 'ARm', 'ARl']
        of_groups = [key.replace('AP', 'AR', 1) for key in groups]
        largest = self.proposals[-1]
        return [
            *(f'AR@{limit}' for limit in self.proposals),
            *(f'{name}@{largest}' for name in (*of_size, *of_groups)),
        ]

    def evaluate_detections(self, spec: EvaluationSpec) -> dict[str, float]:
        """Evaluate the proposals of one IoU type, and log the result."""
        metrics = proposal_recall(spec, self.groups, self.proposals)
        MMLogger.get_current_instance().info(
            f'{spec.iou_type}: '
            + ', '.join(f'{key} {value:.4f}' for key, value in metrics.items())
        )
        return metrics

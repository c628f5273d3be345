"""Average precision by frequency of the classes."""

from __future__ import annotations

from typing import Any

from mmdet.registry import METRICS
from mmengine.logging import MMLogger

from mmdet_longtail.evaluation.functional import (
    Evaluation,
    EvaluationSpec,
    evaluate,
    write_per_class_file,
)
from mmdet_longtail.evaluation.functional.spec import AP_PREFIX
from mmdet_longtail.evaluation.metrics.detection_file_metric import (
    DetectionFileMetric,
)
from mmdet_longtail.utils.checks import check_numbers


@METRICS.register_module()
class FrequencyGroupMetric(DetectionFileMetric):
    """Average precision of rare, common and frequent classes.

    For every IoU type the results are, in this order: AP, AP50, AP75, APs,
    APm, APl, then one AP per group of classes: APr, APc and APf, and
    ``AP_<bin>`` when ``bin_edges`` is given. A group's AP is the mean over
    its classes of each class's AP. Values lie in 0..1 and are not rounded; a
    mean over no class is -1. Then follow ``<mean>_classes``, the number of
    classes behind each mean, and ``classes_without_instances``, the number of
    classes without an instance in the validation set. Such classes are in no
    mean. Keys read ``frequency_group/bbox_APr``; to keep the best checkpoint
    by one of them, mmengine needs ``rule='greater'`` beside ``save_best``.

    After an evaluation ``evaluations['bbox']`` is an `Evaluation`, with the
    AP of each class, and ``statistics`` are the counts that were used.

    Args:
        *args: As for `DetectionFileMetric`: ann_file, metric.
        max_detections (int, optional): Number of best detections that count:
            per image by LVIS's rules (default 300), per image and class by
            COCO's (default 100).
        per_class_file (str, optional): A CSV file to write, one row per class
            in label order: its name, counts and group, then for every IoU
            type the columns of `Evaluation.per_class`.
        **kwargs: As for `DetectionFileMetric`.

    Raises:
        LongTailError: See `DetectionFileMetric`.

    Source: Gupta et al., LVIS, CVPR 2019; Lin et al., Microsoft COCO, 2014.
    """

    default_prefix = AP_PREFIX

    def __init__(
        self,
        *args: Any,
        max_detections: int | None = None,
        per_class_file: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if max_detections is not None:
            check_numbers(self.name, '[1, inf)', max_detections=max_detections)
        self.max_detections = max_detections
        self.per_class_file = per_class_file
        self.evaluations: dict[str, Evaluation] = {}

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Evaluate all detections, and write the table of classes."""
        metrics = super().compute_metrics(results)
        if self.per_class_file is not None and self.evaluations:
            write_per_class_file(
                self.per_class_file, self.evaluations, self.statistics
            )
        return metrics

    def evaluate_detections(self, spec: EvaluationSpec) -> dict[str, float]:
        """Evaluate the detections of one IoU type, and log the table."""
        logger = MMLogger.get_current_instance()
        rules = spec.ground_truth.rules
        logger.info(f'Evaluating {spec.iou_type} by the rules of {rules}...')
        evaluation = evaluate(spec, self.groups)
        logger.info(f'\n{evaluation.table()}')
        self.evaluations[spec.iou_type] = evaluation
        return evaluation.metrics()

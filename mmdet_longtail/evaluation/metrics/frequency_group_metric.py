"""Average precision by frequency of the classes, and AP-Fixed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmdet.registry import METRICS
from mmengine.logging import MMLogger

from mmdet_longtail.evaluation.functional import (
    UNLIMITED,
    Detections,
    Evaluation,
    EvaluationSpec,
    evaluate,
    write_per_class_file,
)
from mmdet_longtail.evaluation.functional.average_precision import MEANS
from mmdet_longtail.evaluation.functional.detections import (
    AP_PREFIX,
    DETECTIONS_PER_CLASS,
    FIXED_AP_PREFIX,
    best_rows,
)
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
    mean. Keys read ``frequency_group/bbox_APr``. ``save_best='auto'`` keeps
    the best checkpoint by the first of them, ``frequency_group/bbox_AP``.

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

    Examples:
        >>> import torch
        >>> from mmdet_longtail.structures import ClassStatistics
        >>> MMLogger.get_current_instance().setLevel('ERROR')
        >>> metric = FrequencyGroupMetric()
        >>> metric.dataset_meta = dict(classes=('dog', 'ibex'))
        >>> metric.set_class_statistics(
        ...     ClassStatistics(('dog', 'ibex'), [90, 2], [120, 3], 100, 91)
        ... )
        >>> box = [0.0, 0.0, 8.0, 8.0]
        >>> sample = dict(
        ...     img_id=7,
        ...     ori_shape=(64, 64),
        ...     instances=[dict(bbox=box, bbox_label=1)],
        ...     pred_instances=dict(
        ...         bboxes=torch.tensor([box]),
        ...         scores=torch.tensor([0.9]),
        ...         labels=torch.tensor([1]),
        ...     ),
        ... )
        >>> metric.process({}, [sample])
        >>> results = metric.evaluate(size=1)
        >>> round(results['frequency_group/bbox_APr'], 4)
        1.0
        >>> results['frequency_group/bbox_APf']  # no dog in the images
        -1.0
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

    def value_names(self, groups: Sequence[str]) -> list[str]:
        """Return the names of `Evaluation.metrics`."""
        means = [*MEANS, *groups]
        numbers = [f'{name}_classes' for name in means]
        return [*means, *numbers, 'classes_without_instances']

    def evaluate_detections(self, spec: EvaluationSpec) -> dict[str, float]:
        """Evaluate the detections of one IoU type, and log the table."""
        logger = MMLogger.get_current_instance()
        rules = spec.ground_truth.rules
        logger.info(f'Evaluating {spec.iou_type} by the rules of {rules}...')
        evaluation = evaluate(spec, self.groups)
        logger.info(f'\n{evaluation.table()}')
        self.evaluations[spec.iou_type] = evaluation
        return evaluation.metrics()


@METRICS.register_module()
class FixedAPMetric(FrequencyGroupMetric):
    """AP-Fixed: the best detections per class, without a limit per image.

    The usual limit of 300 detections per image lets classes compete for
    places, so that AP depends on how scores compare between classes. Here
    each class has places of its own over the whole set. The detector has to
    return more than 300 detections per image for it, such as
    ``test_cfg.rcnn.max_per_img=1000``. mmdet's ``LVISFixedAPMetric(topk=)``
    implements AP-Fixed for LVIS's own files.

    Results are those of `FrequencyGroupMetric`, under ``fixed_ap/``.

    Args:
        detections_per_class (int): Number of best detections per class that
            count, over all images. Defaults to 10000, as in the paper.
        **kwargs: As for `FrequencyGroupMetric`, without ``max_detections``.

    Raises:
        LongTailError: See `FrequencyGroupMetric`.

    Source: Dave et al., Evaluating Large-Vocabulary Object Detectors: The
    Devil is in the Details, 2021, section 4, arXiv:2102.01066.

    Examples:
        >>> import torch
        >>> from mmdet_longtail.structures import ClassStatistics
        >>> MMLogger.get_current_instance().setLevel('ERROR')
        >>> metric = FixedAPMetric(detections_per_class=1)
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
        ...         labels=torch.tensor([1, 1]),
        ...     ),
        ... )
        >>> metric.process({}, [sample])
        >>> metric.evaluate(size=1)['fixed_ap/bbox_APr']  # the best misses
        0.0
    """

    default_prefix = FIXED_AP_PREFIX

    def __init__(
        self,
        *,
        detections_per_class: int = DETECTIONS_PER_CLASS,
        **kwargs: Any,
    ) -> None:
        super().__init__(max_detections=UNLIMITED, **kwargs)
        check_numbers(
            self.name, '[1, inf)', detections_per_class=detections_per_class
        )
        self.detections_per_class = detections_per_class
        self._num_rows = self._num_kept = 0

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep the detections of a batch, and drop what cannot count."""
        if not self.results:
            self._num_rows = self._num_kept = 0
        super().process(data_batch, data_samples)
        for _, prediction in self.results[-len(data_samples) :]:
            self._num_rows += len(prediction['labels'])
        # At twice the number that was kept before: linear in total.
        if self._num_rows > 2 * max(self._num_kept, self.detections_per_class):
            self._drop()

    def select(self, detections: Detections) -> Detections:
        """Select the best detections per class."""
        return detections.best_per_class(self.detections_per_class)

    def _drop(self) -> None:
        """Keep only the best detections per class so far."""
        predictions = [prediction for _, prediction in self.results]
        labels = np.concatenate([p['labels'] for p in predictions])
        is_kept = np.zeros(len(labels), bool)
        for key in {'scores', 'mask_scores'} & set().union(*predictions):
            parts = [p.get(key, p['scores']) for p in predictions]
            scores = np.concatenate(parts)
            rows = best_rows(labels, scores, self.detections_per_class)
            is_kept[rows] = True
        ends = np.cumsum([len(p['labels']) for p in predictions])
        parts = np.split(is_kept, ends[:-1])
        for prediction, kept in zip(predictions, parts, strict=True):
            for key in prediction.keys() - {'img_id'}:
                prediction[key] = prediction[key][kept]
        self._num_rows = self._num_kept = int(is_kept.sum())

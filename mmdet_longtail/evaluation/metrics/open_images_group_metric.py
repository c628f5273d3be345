"""Average precision of Open Images by groups of equally many classes."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from mmdet.evaluation import OpenImagesMetric, eval_map
from mmdet.registry import METRICS
from mmengine.logging import MMLogger

from mmdet_longtail.errors import check
from mmdet_longtail.evaluation.functional import mean
from mmdet_longtail.evaluation.functional.detections import check_new_image
from mmdet_longtail.evaluation.metrics.class_statistics_mixin import (
    ClassStatisticsMixin,
)
from mmdet_longtail.structures.class_statistics import (
    ClassGroup,
    ClassStatistics,
)
from mmdet_longtail.utils.checks import check_numbers
from mmdet_longtail.utils.class_names import check_same_classes


def equal_groups(
    statistics: ClassStatistics, num_groups: int
) -> list[ClassGroup]:
    """Split the C classes by rank of image_count into 1..C equal groups.

    AP1 has the classes with the largest image_count; ties are in label order.
    Of a C that is no multiple, the first groups have one more class.

    Examples:
        >>> statistics = ClassStatistics(
        ...     ('dog', 'ibex'), [90, 2], [120, 3], 100, 91
        ... )
        >>> [(g.key, g.members) for g in equal_groups(statistics, 2)]
        [('AP1', array([ True, False])), ('AP2', array([False,  True]))]
    """
    order = np.argsort(-statistics.image_count, kind='stable')
    labels = np.arange(statistics.num_classes)
    return [
        ClassGroup(f'AP{g}', f'group {g}', np.isin(labels, members))
        for g, members in enumerate(np.array_split(order, num_groups), 1)
    ]


@METRICS.register_module()
class OpenImagesGroupMetric(ClassStatisticsMixin, OpenImagesMetric):
    """mmdet's ``OpenImagesMetric`` with a mean per group of classes.

    Adds AP1 to AP5 to mmdet's ``AP50`` and ``mAP``: the means over groups of
    equally many classes, AP1 of those with most training images. Adds
    ``AP1_classes`` and so on, the number of classes behind each mean. Classes
    without ground truth are in no mean, as in mmdet's; a mean over no class
    is -1. Values lie in 0..1 and, except mmdet's AP50, are not rounded. With
    several IoU thresholds a group's value is the mean over them, like mAP.

    Counts come from ClassStatisticsHook, without it from
    ``class_statistics``. The hook counts the boxes of mmdet's dataset as in
    the annotation file: with boxes around groups of objects, without parents
    in the class hierarchy.

    The metric also accepts OpenImagesChallengeDataset, for whose boxes
    OpenImagesMetric raises a KeyError ('is_group_of').

    Args:
        num_groups (int): Number of groups, 1 to C. Defaults to 5.
        class_statistics (str, optional): A file of ``ClassStatistics.save``.
        **kwargs: Arguments of OpenImagesMetric, without ``scale_ranges``.

    Raises:
        LongTailError: An argument is invalid, an image is given twice, or
            class statistics are missing or of other classes.

    Source: Tan et al., Equalization Loss for Long-Tailed Object Recognition,
    CVPR 2020, Table 6: five groups of 100 classes.

    Examples:
        >>> import torch
        >>> MMLogger.get_current_instance().setLevel('ERROR')
        >>> metric = OpenImagesGroupMetric(2)
        >>> metric.dataset_meta = dict(
        ...     classes=('dog', 'ibex'), RELATION_MATRIX=np.eye(2)
        ... )
        >>> metric.set_class_statistics(
        ...     ClassStatistics(('dog', 'ibex'), [90, 2], [120, 3], 100, 91)
        ... )
        >>> box = [0.0, 0.0, 8.0, 8.0]
        >>> sample = dict(
        ...     instances=[dict(bbox=box, bbox_label=1, is_group_of=False)],
        ...     image_level_labels=np.array([1]),
        ...     pred_instances=dict(
        ...         bboxes=torch.tensor([box]),
        ...         scores=torch.tensor([0.9]),
        ...         labels=torch.tensor([1]),
        ...     ),
        ... )
        >>> metric.process({}, [sample])
        >>> results = metric.evaluate(size=1)
        >>> results['openimages/AP1']  # dog, without an object
        -1.0
        >>> results['openimages/AP2']  # ibex
        1.0
    """

    def __init__(
        self,
        num_groups: int = 5,
        class_statistics: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        name = type(self).__name__
        check_numbers(name, '[1, inf)', num_groups=num_groups)
        check(
            self.scale_ranges is None,
            f'{name}: scale_ranges is {self.scale_ranges}, but groups have no '
            'sizes; use OpenImagesMetric for scale_ranges',
        )
        check(
            int(min(self.iou_thrs) * 100) > num_groups,
            f'{name}: with num_groups={num_groups} the AP at an IoU of '
            f"{min(self.iou_thrs)} has the name of a group's; use fewer "
            'groups',
        )
        self.num_groups = num_groups
        self.class_statistics = class_statistics
        self._given: set[Hashable] = set()

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep the detections and annotations of a batch."""
        if not self.results:
            self._given.clear()
            self._groups()
        for data_sample in data_samples:
            for instance in data_sample['instances']:
                # The key of mmdet's challenge dataset is not its metric's.
                if 'is_group_ofs' in instance:
                    instance['is_group_of'] = instance['is_group_ofs']
            # mmdet's ids of images are not unique, and not used.
            if 'img_path' in data_sample:
                path = data_sample['img_path']
                check_new_image(type(self).__name__, path, self._given)
        super().process(data_batch, data_samples)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Evaluate what ``process`` kept on all ranks."""
        name = type(self).__name__
        check(results, f'{name}: the validation set has no image')
        annotations, detections = zip(*results, strict=True)
        metrics: dict[str, float] = {}
        ap, mean_ap = [], []
        for iou_thr, ioa_thr in zip(self.iou_thrs, self.ioa_thrs, strict=True):
            value, classes = eval_map(
                detections,
                annotations,
                iou_thr=iou_thr,
                ioa_thr=ioa_thr,
                dataset=self.dataset_meta.get('dataset_type', 'oid_v6'),
                logger=MMLogger.get_current_instance(),
                use_group_of=self.use_group_of,
            )
            metrics[f'AP{int(iou_thr * 100):02d}'] = round(value, 3)
            mean_ap.append(value)
            ap.append([c['ap'] for c in classes])  # (C,)
        metrics['mAP'] = float(np.mean(mean_ap))
        # All thresholds have the same objects.
        has_truth = np.array([c['num_gts'] for c in classes]) > 0  # (C,)
        class_ap = np.where(has_truth, np.mean(ap, axis=0), np.nan)  # (C,)
        number: dict[str, float] = {}
        for group in self._groups():
            metrics[group.key] = mean(class_ap[group.members])
            present = int(has_truth[group.members].sum())
            number[f'{group.key}_classes'] = present
        return metrics | number

    def _groups(self) -> list[ClassGroup]:
        statistics = self.training_statistics()
        classes = self.dataset_meta['classes']
        check_same_classes(
            classes,
            statistics.class_names,
            'the validation set',
            'the training statistics',
        )
        check(
            self.num_groups <= len(classes),
            f'{type(self).__name__}: num_groups is {self.num_groups}, but '
            f'there are only {len(classes)} classes',
        )
        return equal_groups(statistics, self.num_groups)

"""Accuracy of classes with many, some and few training images."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmpretrain.registry import METRICS

from mmdet_longtail.errors import check
from mmdet_longtail.evaluation.metrics.class_statistics_mixin import (
    ClassStatisticsMixin,
)


@METRICS.register_module()
class ShotAccuracy(ClassStatisticsMixin, BaseMetric):
    """Top-1 accuracy of many-shot, medium-shot and few-shot classes.

    A class with more than ``many_above`` training images is many-shot, with
    fewer than ``few_below`` few-shot, else medium-shot. The accuracy of a
    group is the mean accuracy of its classes, in percent. Classes without a
    test image are left out. Groups without a class are left out of the
    results.

    ClassStatisticsHook sets the training counts; without it,
    ``class_statistics`` does.

    Source: Liu et al., Large-Scale Long-Tailed Recognition in an Open World,
    CVPR 2019.

    Args:
        many_above (int): Defaults to 100.
        few_below (int): Defaults to 20.
        class_statistics (str, optional): A file of ClassStatistics.save.
        **kwargs: Other arguments of mmengine's BaseMetric.

    Raises:
        LongTailError: If the thresholds overlap, or if statistics are missing
            or have another number of classes.
    """

    default_prefix = 'accuracy'

    def __init__(
        self,
        many_above: int = 100,
        few_below: int = 20,
        class_statistics: str | None = None,
        **kwargs: Any,
    ) -> None:
        check(
            few_below <= many_above + 1,
            f'ShotAccuracy: few_below is {few_below} and many_above is '
            f'{many_above}, which puts classes into both groups; expected '
            'few_below <= many_above + 1',
        )
        super().__init__(**kwargs)
        self.many_above = many_above
        self.few_below = few_below
        self.class_statistics = class_statistics

    def process(
        self, data_batch: Any, data_samples: Sequence[dict[str, Any]]
    ) -> None:
        """Collect the gt_label and pred_label, (1,), of each sample."""
        self.results.extend(
            (int(sample['gt_label']), int(sample['pred_label']))
            for sample in data_samples
        )

    def compute_metrics(
        self, results: list[tuple[int, int]]
    ) -> dict[str, float]:
        """Compute the accuracy of 'many', 'medium' and 'few', in percent."""
        image_count = self.training_statistics().image_count
        labels, predictions = np.array(results).T
        C = len(image_count)
        check(
            labels.max() < C,
            f'ShotAccuracy: a test image has the label {labels.max()}, but '
            f'the class statistics count {C} classes',
        )
        num_images = np.bincount(labels, minlength=C)
        num_correct = np.bincount(labels[labels == predictions], minlength=C)
        is_tested = num_images > 0
        accuracy = 100 * num_correct / np.maximum(num_images, 1)
        is_many = image_count > self.many_above
        is_few = image_count < self.few_below
        is_medium = ~is_many & ~is_few
        groups = {'many': is_many, 'medium': is_medium, 'few': is_few}
        return {
            name: float(accuracy[is_in & is_tested].mean())
            for name, is_in in groups.items()
            if (is_in & is_tested).any()
        }

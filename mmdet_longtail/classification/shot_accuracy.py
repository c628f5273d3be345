"""Accuracy of classes with many, some and few training images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmpretrain.registry import METRICS

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.evaluation.metrics.class_statistics_mixin import (
    ClassStatisticsMixin,
)


@METRICS.register_module()
class ShotAccuracy(ClassStatisticsMixin, BaseMetric):
    """Top-1 accuracy of many-shot, medium-shot and few-shot classes.

    A class is many-shot when more than ``many_above`` training images show
    it, few-shot when fewer than ``few_below`` do, else medium-shot. The
    accuracy of a group is the mean over its classes of each class's accuracy,
    in percent. Classes without a test image are left out; a group without
    any class left is not in the results.

    The training counts come from ClassStatisticsHook; without it, from
    ``class_statistics``.

    Source: Liu et al., Large-Scale Long-Tailed Recognition in an Open World,
    CVPR 2019.

    Args:
        many_above (int): Defaults to 100.
        few_below (int): Defaults to 20.
        class_statistics (str, optional): A file that ClassStatistics.save
            wrote.
        collect_device (str): 'cpu' or 'gpu', used to collect over ranks.
        prefix (str, optional): Replaces 'accuracy' in the keys.

    Raises:
        LongTailError: The thresholds overlap, or statistics are missing or
            of another number of classes.
    """

    default_prefix = 'accuracy'

    def __init__(
        self,
        many_above: int = 100,
        few_below: int = 20,
        class_statistics: str | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        if few_below > many_above + 1:
            raise LongTailError(
                f'ShotAccuracy: few_below is {few_below} and many_above '
                f'{many_above}, so that classes would be in both groups; '
                'expected few_below <= many_above + 1'
            )
        super().__init__(collect_device=collect_device, prefix=prefix)
        self.many_above = many_above
        self.few_below = few_below
        self.class_statistics = class_statistics

    def process(
        self, data_batch: Any, data_samples: Sequence[dict[str, Any]]
    ) -> None:
        """Keep labels and predictions of a batch.

        Args:
            data_batch (dict): Not used.
            data_samples (Sequence[dict]): With gt_label and pred_label, (1,).
        """
        self.results.extend(
            (int(sample['gt_label']), int(sample['pred_label']))
            for sample in data_samples
        )

    def compute_metrics(
        self, results: list[tuple[int, int]]
    ) -> dict[str, float]:
        """Average over the classes of each group.

        Args:
            results (list[tuple[int, int]]): Label and prediction, 0..C-1.

        Returns:
            dict[str, float]: 'many', 'medium', 'few', in percent.
        """
        image_count = self.training_statistics().image_count
        labels, predictions = np.array(results).T
        if labels.max() >= len(image_count):
            raise LongTailError(
                f'ShotAccuracy: a test image has the label {labels.max()}, '
                f'but the class statistics count {len(image_count)} classes'
            )
        num_images = np.bincount(labels, minlength=len(image_count))
        num_correct = np.bincount(
            labels[labels == predictions], minlength=len(image_count)
        )
        is_tested = num_images > 0
        accuracy = 100 * num_correct / np.maximum(num_images, 1)
        is_many = image_count > self.many_above
        is_few = image_count < self.few_below
        groups = {
            'many': is_many,
            'medium': ~is_many & ~is_few,
            'few': is_few,
        }
        return {
            name: float(accuracy[is_in & is_tested].mean())
            for name, is_in in groups.items()
            if (is_in & is_tested).any()
        }

"""AP-Fixed: average precision without a limit per image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmdet.registry import METRICS

from mmdet_longtail.evaluation.functional import UNLIMITED, Detections
from mmdet_longtail.evaluation.functional.detections import best_rows
from mmdet_longtail.evaluation.functional.spec import (
    DETECTIONS_PER_CLASS,
    FIXED_AP_PREFIX,
)
from mmdet_longtail.evaluation.metrics.frequency_group_metric import (
    FrequencyGroupMetric,
)
from mmdet_longtail.utils.checks import check_numbers


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
        for key in ('scores', 'mask_scores'):
            if key in predictions[0]:
                scores = np.concatenate([p[key] for p in predictions])
                rows = best_rows(labels, scores, self.detections_per_class)
                is_kept[rows] = True
        ends = np.cumsum([len(p['labels']) for p in predictions])
        for prediction, kept in zip(
            predictions, np.split(is_kept, ends[:-1]), strict=True
        ):
            for key in ('bboxes', 'scores', 'labels', 'mask_scores'):
                if key in prediction:
                    prediction[key] = prediction[key][kept]
            if 'masks' in prediction:
                prediction['masks'] = [
                    prediction['masks'][row]
                    for row in np.flatnonzero(kept).tolist()
                ]
        self._num_rows = self._num_kept = int(is_kept.sum())

"""What is evaluated, and by which rules."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mmdet_longtail.evaluation.functional.detections import (
    Detections,
    best_rows,
)
from mmdet_longtail.evaluation.functional.ground_truth import GroundTruth

MAX_DETECTIONS = {'coco': 100, 'lvis': 300}
UNLIMITED = 2**31 - 1
# Of AP-Fixed, see `FixedAPMetric`.
DETECTIONS_PER_CLASS = 10_000
AP_PREFIX = 'frequency_group'
FIXED_AP_PREFIX = 'fixed_ap'
PROPOSAL_PREFIX = 'proposal_recall'


@dataclass(frozen=True, eq=False)
class EvaluationSpec:
    """Detections of a validation set, and the rules of their evaluation.

    Args:
        ground_truth (GroundTruth): The validation set, with its rules.
        detections (Detections): n boxes or n masks.
        max_detections (int, optional): Number of best detections that count:
            per image by LVIS's rules (default 300), per image and class by
            COCO's (default 100).
        back_end (str): 'fast' (hotcoco), or 'reference' (lvis and
            pycocotools).
    """

    ground_truth: GroundTruth
    detections: Detections
    max_detections: int | None = None
    back_end: str = 'fast'

    @property
    def iou_type(self) -> str:
        """'bbox' or 'segm'."""
        return self.detections.iou_type

    @property
    def limit(self) -> int:
        """``max_detections``, or the default of the rules."""
        return self.max_detections or MAX_DETECTIONS[self.ground_truth.rules]

    def evaluated_subset(
        self, images: Sequence[int] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Select the objects and detections that the rules consider.

        COCO's rules consider all. lvis silently drops what has no area, and
        the detections beyond the limit per image.

        Args:
            images (Sequence[int], optional): Positions; None selects all.

        Returns:
            tuple[np.ndarray, np.ndarray]: Rows of ``annotations`` and of
            ``detections``, rising.
        """
        truth, detections = self.ground_truth, self.detections
        objects = np.arange(len(truth.annotations))
        rows = np.arange(len(detections))
        if images is not None:
            objects = np.flatnonzero(np.isin(truth.image, images))
            rows = np.flatnonzero(np.isin(detections.image, images))
        if truth.rules == 'lvis':
            objects = objects[truth.column('area')[objects] > 0]
            image, score = detections.image[rows], detections.score[rows]
            rows = rows[best_rows(image, score, self.limit)]
            rows = rows[detections.take(rows).area() > 0]
        return objects, rows

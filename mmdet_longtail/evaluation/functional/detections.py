"""The detections of a validation set, as columns."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hotcoco import mask as mask_utils

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.evaluation.functional.ground_truth import GroundTruth
from mmdet_longtail.utils.fileio import read_json


@dataclass(frozen=True, eq=False)
class Detections:
    """n detections of a validation set.

    Args:
        image (np.ndarray): (n,) int64, position in ``image_ids``.
        label (np.ndarray): (n,) int64 in [0, C).
        score (np.ndarray): (n,) float64, not NaN.
        box (np.ndarray): (n, 4) float64, x, y, width, height in pixels.
        masks (np.ndarray, optional): (n,) run-length encodings, COCO's.
    """

    image: np.ndarray
    label: np.ndarray
    score: np.ndarray
    box: np.ndarray
    masks: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.score)

    @property
    def iou_type(self) -> str:
        """'segm' for detections with masks, else 'bbox'."""
        return 'bbox' if self.masks is None else 'segm'

    def mask(self, row: int) -> dict:
        """Return the run-length encoding of one detection's mask."""
        assert self.masks is not None
        return self.masks[row]

    def area(self) -> np.ndarray:
        """Return the size of each mask or box in pixels (n,)."""
        if self.masks is not None and len(self):
            return np.array(mask_utils.area(self.masks.tolist()), np.float64)
        return self.box[:, 2] * self.box[:, 3]

    def take(self, rows: np.ndarray) -> 'Detections':
        """Select rows by index (m,)."""
        columns: dict[str, Any] = {
            name: column if column is None else column[rows]
            for name, column in vars(self).items()
        }
        return Detections(**columns)

    def best_per_image(self, limit: int) -> 'Detections':
        """Keep the ``limit`` best detections per image."""
        return self.take(best_rows(self.image, self.score, limit))

    def best_per_class(self, limit: int) -> 'Detections':
        """Keep the ``limit`` best detections per class over all images."""
        return self.take(best_rows(self.label, self.score, limit))

    @classmethod
    def concatenate(cls, parts: 'Sequence[Detections]') -> 'Detections':
        """Concatenate detections of one IoU type."""
        columns: dict[str, Any] = {
            name: None
            if column is None
            else np.concatenate([vars(part)[name] for part in parts])
            for name, column in vars(parts[0]).items()
        }
        return cls(**columns)

    @classmethod
    def from_predictions(
        cls,
        predictions: Sequence[Mapping[str, Any]],
        ground_truth: GroundTruth,
        iou_type: str,
        source: str = 'the predictions',
    ) -> 'Detections':
        """Concatenate the predictions of the images.

        Each has img_id, bboxes (k, 4) as corners, scores (k,) and labels
        (k,), for 'segm' also masks and optionally mask_scores (k,).

        Raises:
            LongTailError: A score or box is not finite, or a mask is invalid.
        """
        is_segm = iou_type == 'segm'
        key = 'mask_scores' if is_segm else 'scores'
        image = [ground_truth.image_of[p['img_id']] for p in predictions]
        label = np.concatenate([p['labels'] for p in predictions])
        score = np.concatenate([p.get(key, p['scores']) for p in predictions])
        box = np.concatenate([p['bboxes'] for p in predictions])
        box = box.reshape(-1, 4).astype(np.float64)
        box[:, 2:] -= box[:, :2]
        detections = cls(
            np.repeat(image, [len(p['labels']) for p in predictions]),
            label.astype(np.int64),
            score.astype(np.float64),
            box,
            np.fromiter((m for p in predictions for m in p['masks']), object)
            if is_segm
            else None,
        )
        detections._check(ground_truth, source)
        return detections

    @classmethod
    def load(
        cls, path: str | Path, ground_truth: GroundTruth, iou_type: str
    ) -> 'Detections':
        """Load a JSON file in COCO's result format; see `from_results`."""
        results = read_json(path)
        return cls.from_results(results, ground_truth, iou_type, str(path))

    @classmethod
    def from_results(
        cls,
        results: Any,
        ground_truth: GroundTruth,
        iou_type: str,
        source: str,
    ) -> 'Detections':
        """Convert detections from COCO's result format.

        Each result has image_id, category_id, score, and for the ``iou_type``
        'bbox' a bbox, for 'segm' a segmentation. Messages name the ``source``.

        Raises:
            LongTailError: The content is not a list of valid results, or
                their images or classes are unknown.
        """
        geometry = {'bbox': 'bbox', 'segm': 'segmentation'}[iou_type]
        needed = ('image_id', 'category_id', 'score', geometry)
        image_of, label_of = ground_truth.image_of, ground_truth.label_of
        if not isinstance(results, list):
            raise LongTailError(
                f'{source}: expected a list of detections in the format of '
                f'COCO results, found {type(results).__name__}'
            )
        for i, result in enumerate(results):
            keys = result if isinstance(result, dict) else ()
            missing = [key for key in needed if key not in keys]
            if missing:
                raise LongTailError(
                    f"{source}: detection {i} has no '{missing[0]}'; the "
                    f'evaluation of {iou_type} needs {", ".join(needed)}'
                )
            for key, known in (
                ('image_id', image_of),
                ('category_id', label_of),
            ):
                id = result[key]
                if not isinstance(id, Hashable) or id not in known:
                    raise LongTailError(
                        f'{source}: has {key} {id!r}, which '
                        f'{ground_truth.source} does not have; are the '
                        'results of another dataset?'
                    )
        try:
            score = np.array([r['score'] for r in results], np.float64)
            boxes = [r.get('bbox', (0, 0, 0, 0)) for r in results]
            box = np.array(boxes, np.float64).reshape(len(results), 4)
        except (TypeError, ValueError):
            raise LongTailError(
                f'{source}: expected each score to be a number and each bbox '
                'four of them'
            ) from None
        detections = cls(
            np.array([image_of[r['image_id']] for r in results], np.int64),
            np.array([label_of[r['category_id']] for r in results], np.int64),
            score,
            box,
            np.fromiter((r['segmentation'] for r in results), object)
            if iou_type == 'segm'
            else None,
        )
        detections._check(ground_truth, source)
        return detections

    def _check(self, ground_truth: GroundTruth, source: str) -> None:
        """Validate scores, boxes and masks."""
        image_ids = ground_truth.image_ids
        [wrong] = np.nonzero(np.isnan(self.score))
        if len(wrong):
            raise LongTailError(
                f'{source}: {len(wrong)} scores are NaN, the first in image '
                f'{image_ids[self.image[wrong[0]]]!r}; did the training '
                'diverge?'
            )
        [wrong] = np.nonzero(~np.isfinite(self.box).all(1))
        if len(wrong):
            raise LongTailError(
                f'{source}: a box in image '
                f'{image_ids[self.image[wrong[0]]]!r} is '
                f'{self.box[wrong[0]].tolist()}, expected four finite numbers'
            )
        masks = () if self.masks is None else self.masks
        for i, mask in zip(self.image.tolist(), masks):
            image = ground_truth.images[i]
            size = [image['height'], image['width']]
            if not _is_encoding(mask):
                raise LongTailError(
                    f'{source}: a segmentation in image {image["id"]!r} is '
                    'not a compressed run-length encoding '
                    '{"size": [height, width], "counts": "..."}'
                )
            if list(mask['size']) != size:
                raise LongTailError(
                    f'{source}: a mask in image {image["id"]!r} has the size '
                    f'{list(mask["size"])}, but the image has {size}; masks '
                    'must be of the size of the original image'
                )

    def as_results(self, ground_truth: GroundTruth) -> list[dict[str, Any]]:
        """Convert the detections to COCO's result format.

        Results have no box beside a mask: evaluators would take the area of
        the box.
        """
        category_ids = ground_truth.category_ids
        key, shapes = 'bbox', self.box.tolist()
        if self.masks is not None:
            key, shapes = 'segmentation', [_as_text(m) for m in self.masks]
        columns = self.image.tolist(), self.label.tolist(), self.score.tolist()
        return [
            {
                'image_id': ground_truth.image_ids[image],
                'category_id': category_ids[label],
                key: shape,
                'score': score,
            }
            for image, label, score, shape in zip(
                *columns, shapes, strict=True
            )
        ]


def best_rows(group: np.ndarray, score: np.ndarray, limit: int) -> np.ndarray:
    """Select the ``limit`` best rows per group, the first among equals.

    From group (n,) int64 >= 0 and score (n,) follow row indices, rising.
    """
    if len(group) == 0 or np.bincount(group).max() <= limit:
        return np.arange(len(group))
    order = np.lexsort((-score, group))
    first = np.searchsorted(group[order], group[order], side='left')
    rank = np.arange(len(group)) - first
    return np.sort(order[rank < limit])


def _is_encoding(mask: Any) -> bool:
    """Return whether a mask is a valid compressed run-length encoding."""
    try:
        is_compressed = isinstance(mask['counts'], str | bytes)
        mask_utils.area([mask])
        return is_compressed and isinstance(mask['size'], list | tuple)
    except (KeyError, TypeError, ValueError):
        return False


def _as_text(mask: dict) -> dict:
    """Convert the counts of a mask to text, for JSON."""
    counts = mask['counts']
    return dict(
        mask, counts=counts.decode() if isinstance(counts, bytes) else counts
    )

"""The detections of a validation set, as columns."""

from __future__ import annotations

import dataclasses
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
        masks (Sequence[dict], optional): n run-length encodings, COCO's.
    """

    image: np.ndarray
    label: np.ndarray
    score: np.ndarray
    box: np.ndarray
    masks: Sequence[dict] | None = None

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
        if self.masks:
            return np.array(mask_utils.area(list(self.masks)), np.float64)
        return self.box[:, 2] * self.box[:, 3]

    def take(self, rows: np.ndarray) -> Detections:
        """Select rows by index (m,)."""
        columns = {
            field.name: getattr(self, field.name)[rows]
            for field in dataclasses.fields(self)
            if field.name != 'masks'
        }
        if self.masks is not None:
            columns['masks'] = [self.masks[row] for row in rows.tolist()]
        return Detections(**columns)

    def class_agnostic(self) -> Detections:
        """Set every label to 0."""
        return dataclasses.replace(self, label=np.zeros_like(self.label))

    def best_per_image(self, limit: int) -> Detections:
        """Keep the ``limit`` best detections per image."""
        return self.take(best_rows(self.image, self.score, limit))

    def best_per_class(self, limit: int) -> Detections:
        """Keep the ``limit`` best detections per class over all images."""
        return self.take(best_rows(self.label, self.score, limit))

    @classmethod
    def concatenate(cls, parts: Sequence[Detections]) -> Detections:
        """Concatenate detections of one IoU type."""
        columns: dict[str, Any] = {
            field.name: np.concatenate([getattr(p, field.name) for p in parts])
            for field in dataclasses.fields(cls)
            if field.name != 'masks'
        }
        if parts[0].masks is not None:
            columns['masks'] = [m for part in parts for m in part.masks or ()]
        return cls(**columns)

    @classmethod
    def from_predictions(
        cls,
        predictions: Sequence[Mapping[str, Any]],
        ground_truth: GroundTruth,
        iou_type: str,
    ) -> Detections:
        """Concatenate the predictions of the images.

        Args:
            predictions (Sequence[Mapping]): One per image: img_id, bboxes
                (k, 4) as corners, scores (k,), labels (k,), for 'segm' also
                masks and optionally mask_scores (k,).
            ground_truth (GroundTruth): The validation set.
            iou_type (str): 'bbox' or 'segm'.
        """
        is_segm = iou_type == 'segm'
        counts = [len(p['labels']) for p in predictions]
        image = [ground_truth.image_of[p['img_id']] for p in predictions]
        scores = [
            p.get('mask_scores', p['scores']) if is_segm else p['scores']
            for p in predictions
        ]
        corners = _concatenate([p['bboxes'] for p in predictions])
        corners = corners.reshape(-1, 4).astype(np.float64)
        return cls(
            image=np.repeat(image, counts).astype(np.int64),
            label=_concatenate([p['labels'] for p in predictions], np.int64),
            score=_concatenate(scores, np.float64),
            box=np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]]),
            masks=[mask for p in predictions for mask in p['masks']]
            if is_segm
            else None,
        )

    @classmethod
    def load(
        cls, path: str | Path, ground_truth: GroundTruth, iou_type: str
    ) -> Detections:
        """Load a file in COCO's result format.

        Args:
            path (str | Path): JSON on the local disk, such as
                ``outfile_prefix`` of a metric writes.
            ground_truth (GroundTruth): The validation set.
            iou_type (str): 'bbox' or 'segm'.

        Raises:
            LongTailError: The file is missing or broken; see also
                `from_results`.
        """
        return cls.from_results(
            read_json(path), ground_truth, iou_type, str(path)
        )

    @classmethod
    def from_results(
        cls,
        results: Any,
        ground_truth: GroundTruth,
        iou_type: str,
        source: str,
    ) -> Detections:
        """Convert detections from COCO's result format.

        Args:
            results (Any): The content of a result file: a list of dicts with
                image_id, category_id, score, and bbox or segmentation.
            ground_truth (GroundTruth): The validation set.
            iou_type (str): 'bbox' or 'segm'.
            source (str): The path of the file, for messages.

        Raises:
            LongTailError: The content is not a list of results, a score is
                not a number, or the images or classes are unknown.
        """
        geometry = {'bbox': 'bbox', 'segm': 'segmentation'}[iou_type]
        needed = ('image_id', 'category_id', 'score', geometry)
        if not isinstance(results, list):
            raise LongTailError(
                f'{source}: expected a list of detections in the format of '
                f'COCO results, found {type(results).__name__}'
            )
        for i, result in enumerate(results):
            missing = (
                [key for key in needed if key not in result]
                if isinstance(result, dict)
                else needed
            )
            if missing:
                raise LongTailError(
                    f"{source}: detection {i} has no '{missing[0]}'; the "
                    f'evaluation of {iou_type} needs {", ".join(needed)}'
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
            image=_positions(
                [r['image_id'] for r in results],
                ground_truth.image_of,
                'image_id',
                source,
                ground_truth.source,
            ),
            label=_positions(
                [r['category_id'] for r in results],
                ground_truth.label_of,
                'category_id',
                source,
                ground_truth.source,
            ),
            score=score,
            box=box,
            masks=[r['segmentation'] for r in results]
            if iou_type == 'segm'
            else None,
        )
        detections.check(ground_truth, source)
        return detections

    def check(self, ground_truth: GroundTruth, source: str) -> None:
        """Validate scores, boxes and masks.

        Args:
            ground_truth (GroundTruth): The validation set.
            source (str): Origin of the detections, for the message.

        Raises:
            LongTailError: A score or box is not finite, or a mask cannot be
                decoded or has not the size of its image.
        """
        [wrong] = np.nonzero(np.isnan(self.score))
        if len(wrong):
            image = ground_truth.image_ids[self.image[wrong[0]]]
            raise LongTailError(
                f'{source}: {len(wrong)} scores are NaN, the first in image '
                f'{image!r}; did the training diverge?'
            )
        [wrong] = np.nonzero(~np.isfinite(self.box).all(1))
        if len(wrong):
            image = ground_truth.image_ids[self.image[wrong[0]]]
            raise LongTailError(
                f'{source}: a box in image {image!r} is '
                f'{self.box[wrong[0]].tolist()}, expected four finite numbers'
            )
        if self.masks is None:
            return
        for i, mask in zip(self.image.tolist(), self.masks, strict=True):
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

        Args:
            ground_truth (GroundTruth): The validation set.
        """
        category_ids = ground_truth.category_ids
        key, shapes = 'bbox', self.box.tolist()
        if self.masks is not None:
            key = 'segmentation'
            shapes = [_as_text(mask) for mask in self.masks]
        return [
            {
                'image_id': ground_truth.image_ids[image],
                'category_id': category_ids[label],
                key: shape,
                'score': score,
            }
            for image, label, shape, score in zip(
                self.image.tolist(),
                self.label.tolist(),
                shapes,
                self.score.tolist(),
                strict=True,
            )
        ]


def best_rows(group: np.ndarray, score: np.ndarray, limit: int) -> np.ndarray:
    """Select the ``limit`` best rows per group, the first among equals.

    Args:
        group (np.ndarray): (n,) int64 >= 0.
        score (np.ndarray): (n,).
        limit (int): Maximum number of rows per group.

    Returns:
        np.ndarray: Row indices, rising.
    """
    if len(group) == 0 or np.bincount(group).max() <= limit:
        return np.arange(len(group))
    order = np.lexsort((-score, group))
    first = np.searchsorted(group[order], group[order], side='left')
    rank = np.arange(len(group)) - first
    return np.sort(order[rank < limit])


def _concatenate(
    columns: Sequence[np.ndarray], dtype: Any = None
) -> np.ndarray:
    if not columns:
        return np.zeros(0, dtype or np.float64)
    joined = np.concatenate([np.asarray(column) for column in columns])
    return joined if dtype is None else joined.astype(dtype)


def _positions(
    ids: Sequence[Hashable],
    position_of: Mapping[Hashable, int],
    key: str,
    source: str,
    ground_truth: str,
) -> np.ndarray:
    try:
        return np.array([position_of[id] for id in ids], np.int64)
    except (KeyError, TypeError):
        unknown = next(
            id
            for id in ids
            if not isinstance(id, Hashable) or id not in position_of
        )
        raise LongTailError(
            f'{source}: has {key} {unknown!r}, which {ground_truth} does not '
            'have; are the results of another dataset?'
        ) from None


def _is_encoding(mask: Any) -> bool:
    """Return whether a mask is a valid compressed run-length encoding."""
    if not (
        isinstance(mask, dict)
        and isinstance(mask.get('size'), list | tuple)
        and isinstance(mask.get('counts'), str | bytes)
    ):
        return False
    try:
        mask_utils.area([mask])
    except (TypeError, ValueError):
        return False
    return True


def _as_text(mask: dict) -> dict:
    """Convert the counts of a mask to text, for JSON."""
    counts = mask['counts']
    if isinstance(counts, bytes):
        counts = counts.decode()
    return dict(mask, counts=counts)

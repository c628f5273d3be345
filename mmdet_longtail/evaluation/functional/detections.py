"""The detections of a validation set as columns, and what is evaluated."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from hotcoco import mask as mask_utils

from mmdet_longtail.errors import LongTailError, check
from mmdet_longtail.evaluation.functional.ground_truth import GroundTruth
from mmdet_longtail.structures.annotation_fields import is_number, other_type
from mmdet_longtail.utils.fileio import read_json

MAX_DETECTIONS = {'coco': 100, 'lvis': 300}
UNLIMITED = 2**31 - 1
# Of AP-Fixed, see `FixedAPMetric`.
DETECTIONS_PER_CLASS = 10_000
AP_PREFIX = 'frequency_group'
FIXED_AP_PREFIX = 'fixed_ap'
PROPOSAL_PREFIX = 'proposal_recall'


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

    @cached_property
    def area(self) -> np.ndarray:
        """The size of each mask or box in pixels (n,)."""
        if self.masks is not None and len(self):
            return np.array(mask_utils.area(self.masks.tolist()), np.float64)
        return self.box[:, 2] * self.box[:, 3]

    def take(self, rows: np.ndarray) -> 'Detections':
        """Select rows by index (m,)."""
        columns = self.image, self.label, self.score, self.box
        image, label, score, box = (column[rows] for column in columns)
        masks = None if self.masks is None else self.masks[rows]
        return Detections(image, label, score, box, masks)

    def best_per_image(self, limit: int) -> 'Detections':
        """Keep the ``limit`` best detections per image."""
        return self.take(best_rows(self.image, self.score, limit))

    def best_per_class(self, limit: int) -> 'Detections':
        """Keep the ``limit`` best detections per class over all images."""
        return self.take(best_rows(self.label, self.score, limit))

    @classmethod
    def concatenate(cls, parts: 'Sequence[Detections]') -> 'Detections':
        """Concatenate detections of one IoU type."""
        joined: list[Any] = []
        for field in fields(cls):
            column = [getattr(part, field.name) for part in parts]
            joined.append(
                None if column[0] is None else np.concatenate(column)
            )
        return cls(*joined)

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
        masks = (m for p in predictions for m in p['masks'])
        return cls(
            np.repeat(image, [len(p['labels']) for p in predictions]),
            label.astype(np.int64),
            score.astype(np.float64),
            box,
            np.fromiter(masks, object) if is_segm else None,
        )._checked(ground_truth, source)

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
        check(
            isinstance(results, list),
            f'{source}: expected a list of detections in the format of COCO '
            f'results, found {type(results).__name__}',
        )
        image_of, label_of = ground_truth.image_of, ground_truth.label_of
        is_segm = iou_type == 'segm'
        geometry = 'segmentation' if is_segm else 'bbox'
        try:
            shapes = [r[geometry] for r in results]
            boxes = [r.get('bbox', (0, 0, 0, 0)) for r in results]
            scores = [r['score'] for r in results]
            detections = cls(
                np.array([image_of[r['image_id']] for r in results], np.int64),
                np.array(
                    [label_of[r['category_id']] for r in results], np.int64
                ),
                _numbers(scores),
                _numbers(boxes, 4),
                np.fromiter(shapes, object) if is_segm else None,
            )
        except (KeyError, TypeError, ValueError):
            needed = ('image_id', 'category_id', 'score', geometry)
            for i, result in enumerate(results):
                for key in needed:
                    check(
                        isinstance(result, dict) and key in result,
                        f"{source}: detection {i} has no '{key}'; the "
                        f'evaluation of {iou_type} needs {", ".join(needed)}',
                    )
                for key, known in zip(needed, (image_of, label_of)):
                    id = result[key]
                    if not (isinstance(id, Hashable) and id in known):
                        other = other_type(id, known)
                        raise LongTailError(
                            f'{source}: has {key} {id!r}, which '
                            f'{ground_truth.source} does not have'
                            + (
                                f', but {other}'
                                if other
                                else '; are the results of another dataset?'
                            )
                        ) from None
                check(
                    is_number(result['score']),
                    f'{source}: detection {i} has the score '
                    f'{result["score"]!r:.60}, expected a finite number',
                )
                box = result.get('bbox', (0, 0, 0, 0))
                check(
                    isinstance(box, list | tuple)
                    and len(box) == 4
                    and all(map(is_number, box)),
                    f'{source}: detection {i} has the bbox {box!r:.60}, '
                    'expected four finite numbers: x, y, width, height',
                )
            raise
        return detections._checked(ground_truth, source)

    def _checked(self, ground_truth: GroundTruth, source: str) -> 'Detections':
        """Validate scores, boxes and masks."""
        images = [ground_truth.images[i] for i in self.image.tolist()]
        [wrong] = np.nonzero(~np.isfinite(self.score))
        if len(wrong):
            raise LongTailError(
                f'{source}: {len(wrong)} scores are NaN or infinite, the '
                f'first in image {images[wrong[0]]["id"]!r}; did the training '
                'diverge?'
            )
        for row in np.flatnonzero(~np.isfinite(self.box).all(1)):
            raise LongTailError(
                f'{source}: a box in image {images[row]["id"]!r} is '
                f'{self.box[row].tolist()}, expected four finite numbers'
            )
        masks = [] if self.masks is None else self.masks.tolist()
        is_valid = _are_encodings(masks)  # In one call, which is faster.
        for image, mask in zip(images, masks):
            check(
                is_valid or _are_encodings([mask]),
                f'{source}: a segmentation in image {image["id"]!r} is not a '
                'compressed run-length encoding '
                '{"size": [height, width], "counts": "..."}',
            )
            size = [image['height'], image['width']]
            if list(mask['size']) != size:
                raise LongTailError(
                    f'{source}: a mask in image {image["id"]!r} has the size '
                    f'{list(mask["size"])}, but the image has {size}; masks '
                    'must be of the size of the original image'
                )
        return self

    def as_results(self, ground_truth: GroundTruth) -> list[dict[str, Any]]:
        """Convert the detections to COCO's result format.

        Results have no box beside a mask: evaluators would take the area of
        the box.
        """
        key, shapes = 'bbox', self.box.tolist()
        if self.masks is not None:
            key, shapes = 'segmentation', [dict(m) for m in self.masks]
            for mask in shapes:
                if isinstance(mask['counts'], bytes):  # JSON has text only.
                    mask['counts'] = mask['counts'].decode()
        columns = self.image.tolist(), self.label.tolist(), self.score.tolist()
        return [
            {
                'image_id': ground_truth.image_ids[image],
                'category_id': ground_truth.category_ids[label],
                key: shape,
                'score': score,
            }
            for image, label, score, shape in zip(*columns, shapes)
        ]


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

    @property
    def warning(self) -> str:
        """A sentence for a set without any detection, else ''."""
        if len(self.detections):
            return ''
        return (
            f'nothing was detected in {len(self.ground_truth.images):,} '
            'images, so AP is 0: the training was too short or diverged, or '
            'score_thr in model.test_cfg is too high'
        )

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
        chosen = np.arange(len(truth.images)) if images is None else images
        objects = np.flatnonzero(np.isin(truth.image, chosen))
        rows = np.flatnonzero(np.isin(detections.image, chosen))
        if truth.rules == 'lvis':
            objects = objects[truth.column('area')[objects] > 0]
            image, score = detections.image[rows], detections.score[rows]
            rows = rows[best_rows(image, score, self.limit)]
            rows = rows[detections.area[rows] > 0]
        return objects, rows


def best_rows(group: np.ndarray, score: np.ndarray, limit: int) -> np.ndarray:
    """Select the ``limit`` best rows per group, the first among equals.

    From group (n,) int64 >= 0 and score (n,) follow row indices, rising.

    Examples:
        >>> score = np.array([0.1, 0.9, 0.5, 0.3])
        >>> best_rows(np.array([0, 0, 0, 1]), score, limit=2)
        array([1, 2, 3])
    """
    if len(group) == 0 or np.bincount(group).max() <= limit:
        return np.arange(len(group))
    order = np.lexsort((-score, group))
    first = np.searchsorted(group[order], group[order], side='left')
    rank = np.arange(len(group)) - first
    return np.sort(order[rank < limit])


def check_new_image(name: str, id: Hashable, given: set[Hashable]) -> None:
    """Add an image to those that a dataset gave to a metric of this name.

    Raises:
        LongTailError: If the image is there already.
    """
    check(
        id not in given,
        f'{name}: the dataset gives the image {id!r} twice; concatenated '
        'datasets need different images and image ids, so evaluate each '
        'alone, or merge their annotation files',
    )
    given.add(id)


def _numbers(values: Sequence[Any], *size: int) -> np.ndarray:
    """Convert JSON numbers, or lists of them of a size, to float64.

    Raises:
        TypeError: There is anything else, such as text or null.
        ValueError: Lists are of different lengths.
    """
    array = np.array(values) if values else np.zeros((0, *size))
    if array.dtype.kind not in 'iuf' or array.shape[1:] != size:
        raise TypeError
    return array.astype(np.float64)


def _are_encodings(masks: list[Any]) -> bool:
    """Return whether all masks are valid compressed run-length encodings."""
    try:
        mask_utils.area(masks)
    except (OverflowError, TypeError, ValueError):
        return False
    return all(
        issubclass(counts, str | bytes) and issubclass(size, list | tuple)
        for counts, size in {
            (type(m['counts']), type(m['size'])) for m in masks
        }
    )

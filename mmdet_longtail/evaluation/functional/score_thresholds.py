"""Score thresholds per class, chosen by F1 on held-out images."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmdet_longtail.errors import check
from mmdet_longtail.evaluation.functional.matching import Matches
from mmdet_longtail.utils.checks import check_numbers
from mmdet_longtail.utils.class_names import list_names
from mmdet_longtail.utils.fileio import read_record, write_atomic

FORMAT = 'mmdet_longtail.score_thresholds'
VERSION = 1
KEYS = ('name', 'threshold', 'num_objects', 'is_shared')


@dataclass(frozen=True, eq=False)
class ScoreThresholds:
    """The smallest score of a detection that is shown, per class.

    Args:
        class_names (tuple[str, ...]): C names, in label order.
        threshold (np.ndarray): (C,) float64, 0..1.
        num_objects (np.ndarray): (C,) int64, objects in the held-out images.
        is_shared (np.ndarray): (C,) bool, whether the class has the threshold
            of several classes.
    """

    class_names: tuple[str, ...]
    threshold: np.ndarray
    num_objects: np.ndarray
    is_shared: np.ndarray

    @classmethod
    def choose(
        cls, matches: Matches, min_objects: int = 10
    ) -> 'ScoreThresholds':
        """Choose the threshold of the best F1 per class.

        Classes with fewer objects than ``min_objects``, or of which none is
        found, share the best threshold of all these classes together. If
        none of their objects is found, they take the best one of all classes.

        Args:
            matches (Matches): n detections at one IoU threshold.
            min_objects (int): Smallest number of objects of a class with a
                threshold of its own.

        Raises:
            LongTailError: If no object is found.
        """
        truth, detections = matches.spec.ground_truth, matches.spec.detections
        C = truth.num_classes
        is_true, is_counted, is_object = _first_threshold(matches)
        num_objects = np.bincount(truth.label[is_object], minlength=C)
        counted = np.flatnonzero(is_counted)
        counted = counted[np.argsort(detections.label[counted], kind='stable')]
        labels = detections.label[counted]
        rows_of = np.split(counted, np.searchsorted(labels, np.arange(1, C)))

        def best(classes: np.ndarray) -> tuple[float, float]:
            rows = np.concatenate([rows_of[c] for c in classes])
            total = int(num_objects[classes].sum())
            return best_f1(detections.score[rows], is_true[rows], total)

        overall, f1 = best(np.arange(C))
        check(
            f1 > 0,
            f'{truth.source}: none of its {is_object.sum():,} objects is '
            'found, so no threshold follows; are the detections those of '
            'these images?',
        )
        threshold = np.full(C, overall)
        is_shared = np.ones(C, bool)
        for c in np.flatnonzero(num_objects >= min_objects):
            own, f1 = best(np.array([c]))
            if f1 > 0:
                threshold[c], is_shared[c] = own, False
        few = np.flatnonzero(is_shared)
        if len(few):
            shared, f1 = best(few)
            threshold[few] = shared if f1 > 0 else overall
        names = tuple(truth.class_names)
        return cls(names, threshold, num_objects, is_shared)

    def save(self, path: str | Path) -> None:
        """Write the thresholds as JSON, atomically.

        Raises:
            LongTailError: If the file cannot be written.
        """
        columns = (getattr(self, key).tolist() for key in KEYS[1:])
        rows = zip(self.class_names, *columns, strict=True)
        classes = [dict(zip(KEYS, row)) for row in rows]
        content = {'format': FORMAT, 'version': VERSION, 'classes': classes}
        write_atomic(path, json.dumps(content, indent=1) + '\n')

    @classmethod
    def load(cls, path: str | Path) -> 'ScoreThresholds':
        """Load a file of `save`.

        Raises:
            LongTailError: If the file is missing, or is no such file.
        """
        content = read_record(path, 'format', 'version', 'classes')
        found = content['format'], content['version']
        check(
            found == (FORMAT, VERSION),
            f'{path}: has format and version {found}, expected '
            f'{(FORMAT, VERSION)}; `longtail score-thresholds` writes such a '
            'file',
        )
        rows = content['classes']
        for row in rows if isinstance(rows, list) else [rows]:
            missing = set(KEYS) - set(row if isinstance(row, dict) else ())
            check(
                not missing,
                f'{path}: a class is {row!r:.60}, expected an object with '
                f'{", ".join(KEYS)}',
            )
            owner = f'{path}: class {row["name"]!r}'
            check_numbers(owner, '[0, 1]', threshold=row['threshold'])
        names, *columns = ([row[key] for row in rows] for key in KEYS)
        return cls(tuple(names), *map(np.array, columns))

    def of_classes(self, class_names: Sequence[str], owner: str) -> np.ndarray:
        """Return the thresholds (C,) of an owner's classes, by their names.

        Raises:
            LongTailError: If a class has no threshold.
        """
        threshold_of = dict(zip(self.class_names, self.threshold.tolist()))
        missing = [name for name in class_names if name not in threshold_of]
        check(
            not missing,
            f'{owner}: no score threshold for {list_names(missing, 3)}; '
            'choose the thresholds on images of the same classes',
        )
        return np.array([threshold_of[name] for name in class_names])


def best_f1(
    score: np.ndarray, is_true: np.ndarray, num_objects: int
) -> tuple[float, float]:
    r"""Find the threshold of detections with the best F1.

    .. math::
        F_1(t) = \frac{2\, TP(t)}{D(t) + G}

    with TP true positives among the D detections of a score of at least t,
    and G objects. Of equal F1 the highest threshold wins.

    Args:
        score (np.ndarray): Scores (n,).
        is_true (np.ndarray): Whether each is a true positive, bool (n,).
        num_objects (int): G.

    Returns:
        tuple[float, float]: The threshold, one of the scores or 1, and F1,
        0..1.

    Examples:
        >>> score = np.array([0.9, 0.6, 0.3])
        >>> best_f1(score, np.array([True, True, False]), num_objects=2)
        (0.6, 1.0)
    """
    if len(score) == 0:
        return 1.0, 0.0
    order = np.argsort(-score, kind='stable')
    score, num_true = score[order], np.cumsum(is_true[order])  # (n,)
    f1 = 2 * num_true / (np.arange(1, len(score) + 1) + num_objects)
    # Detections of one score pass together.
    is_last = np.append(score[1:] < score[:-1], True)
    best = np.where(is_last, f1, -1).argmax()
    return float(score[best]), float(f1[best])


def f1_per_class(matches: Matches, threshold: np.ndarray) -> np.ndarray:
    """Compute F1 of the detections that reach their class's threshold.

    Args:
        matches (Matches): n detections at one IoU threshold.
        threshold (np.ndarray): (C,), 0..1.

    Returns:
        np.ndarray: (C,) in 0..1, NaN for a class without objects.
    """
    truth, detections = matches.spec.ground_truth, matches.spec.detections
    label, C = detections.label, truth.num_classes
    is_true, is_counted, is_object = _first_threshold(matches)
    is_shown = detections.score >= threshold[label]
    num_true = np.bincount(label[is_true & is_shown], minlength=C)
    num_shown = np.bincount(label[is_counted & is_shown], minlength=C)
    num_objects = np.bincount(truth.label[is_object], minlength=C)
    f1 = 2 * num_true / np.maximum(num_shown + num_objects, 1)
    return np.where(num_objects > 0, f1, np.nan)


def _first_threshold(
    matches: Matches,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return true positives (n,), counted detections (n,), objects (m,)."""
    is_true, is_false = matches.is_true[:, 0], matches.is_false[:, 0]
    is_object = matches.is_found[:, 0] | matches.is_missed[:, 0]
    return is_true, is_true | is_false, is_object

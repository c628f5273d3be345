"""Score thresholds of a detector, from held-out images."""

from pathlib import Path

import numpy as np

from mmdet_longtail.apis.report import ComparedDetectors
from mmdet_longtail.errors import check
from mmdet_longtail.evaluation.functional import match_detections
from mmdet_longtail.evaluation.functional.average_precision import mean
from mmdet_longtail.evaluation.functional.score_thresholds import (
    ScoreThresholds,
    f1_per_class,
)
from mmdet_longtail.utils.console import table_console
from mmdet_longtail.utils.tables import make_table

GLOBAL_THRESHOLD = 0.3  # the default of `longtail predict`


def choose_score_thresholds(
    detectors: ComparedDetectors,
    out: str | Path,
    min_objects: int = 10,
    iou_thr: float = 0.5,
) -> ScoreThresholds:
    """Choose the threshold of the best F1 per class, and print and write it.

    Args:
        detectors (ComparedDetectors): One detector and the held-out images.
        out (str | Path): JSON file to write.
        min_objects (int): See `ScoreThresholds.choose`.
        iou_thr (float): Smallest overlap of a true positive.

    Raises:
        LongTailError: If there are several detectors, a file is missing or
            broken, or no object is found.
    """
    check(
        len(detectors.paths) == 1,
        f'found {len(detectors.paths)} detectors, expected one: each detector '
        'has thresholds of its own',
    )
    [spec] = detectors.make_specs()
    matches = match_detections(spec, [iou_thr])
    chosen = ScoreThresholds.choose(matches, min_objects)
    alike = np.full(len(chosen.threshold), GLOBAL_THRESHOLD)
    f1 = [f1_per_class(matches, t) for t in (alike, chosen.threshold)]
    everything = np.ones(len(alike), bool)
    groups = detectors.validation.groups
    rows = [
        [
            name,
            int(np.isfinite(f1[0][members]).sum()),
            int(chosen.is_shared[members].sum()),
            *_range(chosen.threshold[members]),
            *(f'{100 * mean(values[members]):.1f}' for values in f1),
        ]
        for name, members in [
            ('all', everything),
            *((group.name, group.members) for group in groups),
        ]
        if np.isfinite(f1[0][members]).any()
    ]
    headings = ['classes', 'with objects', 'shared', 'lowest', 'median']
    headings += [f'F1 at {GLOBAL_THRESHOLD}', 'F1']
    title = f'score thresholds, mean F1 in percent, IoU {iou_thr:g}'
    table_console().print(make_table(headings, rows, title))
    chosen.save(out)
    print(f'thresholds: {out}')
    return chosen


def _range(threshold: np.ndarray) -> list[str]:
    return [
        f'{value:.3f}' for value in (threshold.min(), np.median(threshold))
    ]

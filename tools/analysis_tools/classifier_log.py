"""Add up what ClassifierMonitorHook logged, over ranges of iterations.

    longtail classifier-log work_dirs/softmax work_dirs/eql \
        --iterations 5-30 35-80

Prints for each group of classes, over the logged iterations of a range:

    negative_to_positive    gradient from all negatives over that from
                            positives; above 1 the negatives win
    foreground_to_positive  the same of foreground negatives alone
    positive_rois           RoIs of the group's classes; with few of them the
                            numbers are rough
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import command_parser
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.utils.classifier_recorder import (
    GRADIENTS,
    negative_to_positive,
)
from mmdet_longtail.utils.console import table_console

PREFIX = 'classifier/'


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser(__doc__)
    parser.add_argument(
        'work_dirs',
        nargs='+',
        metavar='WORK_DIR',
        help='of a training with ClassifierMonitorHook',
    )
    parser.add_argument(
        '--iterations',
        type=iterations,
        nargs='+',
        metavar='FIRST-LAST',
        help='ranges, both ends included (default: one, the whole log)',
    )
    return parser.parse_args()


def iterations(text: str) -> tuple[int, int]:
    """Read a range such as 5-30."""
    ends = re.fullmatch(r'(\d+)-(\d+)', text)
    if ends is None or int(ends[1]) > int(ends[2]):
        raise argparse.ArgumentTypeError(
            f'{text} is not two iterations, the first one first, as in 5-30'
        )
    return int(ends[1]), int(ends[2])


def read_log(work_dir: str) -> dict[int, dict[str, Any]]:
    """Read what was logged of the classifier, by iteration.

    Of an iteration that a resumed training repeated, the last one counts.

    Raises:
        LongTailError: If there is nothing.
    """
    logged = {}
    for path in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            scalars = json.loads(line)
            if any(key.startswith(PREFIX) for key in scalars):
                logged[scalars['step']] = scalars
    if not logged:
        raise LongTailError(
            f'{work_dir}: no */vis_data/scalars.json with scalars of '
            f'{PREFIX}; train with default_hooks.classifier_monitor.type='
            'ClassifierMonitorHook and give the work directory'
        )
    return logged


def add_up(
    logged: dict[int, dict[str, Any]], first: int, last: int
) -> dict[str, dict[str, np.ndarray]]:
    """Add up the gradients and the positive RoIs of each group."""
    sums: dict[str, dict[str, np.ndarray]] = {}
    for step, scalars in logged.items():
        for key, value in scalars.items():
            if not key.startswith(PREFIX) or not first <= step <= last:
                continue
            group, measure = key.removeprefix(PREFIX).split('/')
            if measure in (*GRADIENTS, 'positive_rois'):
                own = sums.setdefault(group, {})
                own[measure] = own.get(measure, np.zeros(())) + value
    return sums


def rows(
    work_dir: str, ranges: Sequence[tuple[int, int]] | None
) -> list[list[str]]:
    """Return the rows of a training.

    Raises:
        LongTailError: If nothing was logged in a range.
    """
    logged = read_log(work_dir)
    found = []
    for first, last in ranges or [(min(logged), max(logged))]:
        sums = add_up(logged, first, last)
        if not sums:
            raise LongTailError(
                f'--iterations {first}-{last}: {work_dir} has logged nothing '
                f'then, but from {min(logged)} to {max(logged)}'
            )
        for group, own in sums.items():
            of_objects = dict(own, gradient_background_negative=np.zeros(()))
            found.append(
                [
                    Path(work_dir).resolve().name,
                    f'{first}-{last}',
                    group,
                    f'{negative_to_positive(own):.3g}',
                    f'{negative_to_positive(of_objects):.3g}',
                    f'{own["positive_rois"]:,.0f}',
                ]
            )
    return found


def main() -> None:
    """Print a row a training, range and group."""
    args = parse_args()
    table = Table('training', 'iterations', 'group', box=None)
    for name in (
        'negative to positive',
        'foreground to positive',
        'positive rois',
    ):
        table.add_column(name, justify='right')
    for work_dir in args.work_dirs:
        for row in rows(work_dir, args.iterations):
            table.add_row(*row)
    table_console().print(table)


if __name__ == '__main__':
    run(main)

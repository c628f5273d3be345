"""What the tools for result files share: their options, inputs and outputs."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmdet_longtail.cli.options import fraction, positive_int
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.evaluation.functional import (
    Evaluation,
    GroundTruth,
    Interval,
    bootstrap_means,
    intervals,
)
from mmdet_longtail.evaluation.functional.back_ends import BACK_ENDS
from mmdet_longtail.structures.class_statistics import (
    ClassGroup,
    ClassStatistics,
    check_bin_edges,
    pool,
)
from mmdet_longtail.utils.class_names import check_counted_classes
from mmdet_longtail.utils.console import progress_console
from mmdet_longtail.utils.fileio import write_atomic


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that name the data behind results."""
    parser.add_argument(
        '--ann',
        required=True,
        metavar='VAL.json',
        help='COCO or LVIS annotations of the validation set',
    )
    counts = parser.add_mutually_exclusive_group()
    counts.add_argument(
        '--statistics',
        metavar='STATS.json',
        help='counts of the training set, which decide the groups of '
        'classes; tools/class_statistics.py --out writes them',
    )
    counts.add_argument(
        '--train',
        metavar='TRAIN.json',
        help='annotations of the training set, to count them here',
    )
    parser.add_argument('--iou-type', choices=['bbox', 'segm'], default='bbox')


def given_statistics(args: argparse.Namespace) -> ClassStatistics | None:
    """Read the counts of the training set that `add_data_options` names.

    Raises:
        LongTailError: If the file is missing or broken.
    """
    if args.statistics is not None:
        return ClassStatistics.load(args.statistics)
    if args.train is not None:
        return ClassStatistics.from_annotation_file(args.train)
    return None


def add_validation_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what results are evaluated on, and how."""
    add_data_options(parser)
    parser.add_argument(
        '--bin-edges',
        type=float,
        nargs='+',
        metavar='EDGE',
        help='groups by count in the place of rare, common and frequent',
    )
    parser.add_argument(
        '--bin-by',
        choices=['instance_count', 'image_count'],
        default='instance_count',
        help='what --bin-edges splits (default: %(default)s)',
    )
    parser.add_argument(
        '--max-detections',
        type=positive_int,
        metavar='K',
        help="the best that count: of an image by LVIS's rules (default: "
        "300), of an image and class by COCO's (default: 100)",
    )
    parser.add_argument(
        '--annotation-format',
        choices=['lvis', 'coco'],
        help='whose rules hold (default: LVIS for files that say which '
        'classes an image was checked for)',
    )
    parser.add_argument(
        '--back-end',
        choices=list(BACK_ENDS),
        default='fast',
        help="hotcoco, or lvis' and pycocotools' own code "
        '(default: %(default)s)',
    )


def add_bootstrap_options(
    parser: argparse.ArgumentParser, default: int
) -> None:
    """Add the options of intervals.

    Args:
        parser (argparse.ArgumentParser): Of a tool.
        default (int): Draws when the user does not say; 0 is no interval.
    """
    parser.add_argument(
        '--bootstrap',
        type=positive_int,
        default=default,
        metavar='B',
        help='intervals of AP and group APs from B draws of the images '
        f'(default: {default or "none"})',
    )
    parser.add_argument(
        '--confidence',
        type=fraction,
        default=0.95,
        help='share of the draws inside an interval (default: %(default)s)',
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='of the draws (default: 0)'
    )


def read_validation_set(
    args: argparse.Namespace,
) -> tuple[GroundTruth, ClassStatistics | None, list[ClassGroup]]:
    """Read what `add_validation_options` names.

    Returns:
        tuple: The validation set; counts of the training set, if given; and
        groups by them, with rare and common classes together as one more.

    Raises:
        LongTailError: If a file is missing or broken, or if the counts are
            of other classes.
    """
    if args.bin_edges is not None:
        check_bin_edges(args.bin_edges, '--bin-edges')
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always', UserWarning)
        ground_truth = GroundTruth.load(
            args.ann, (args.iou_type,), args.annotation_format
        )
        statistics = _read_statistics(args)
    for warning in caught:
        print(f'warning: {warning.message}', file=sys.stderr)
    if statistics is None:
        return ground_truth, None, []
    check_counted_classes(ground_truth, statistics)
    if args.bin_edges is not None:
        groups = statistics.bin_groups(args.bin_edges, args.bin_by)
    else:
        groups = statistics.frequency_groups()
        groups.append(pool(groups[:2]))
    return ground_truth, statistics, groups


def _read_statistics(args: argparse.Namespace) -> ClassStatistics | None:
    statistics = given_statistics(args)
    if statistics is not None:
        return statistics
    if args.bin_edges is not None:
        raise LongTailError(
            '--bin-edges: groups need counts of the training set; add '
            '--statistics or --train'
        )
    print(
        'No groups: add --statistics STATS.json (tools/class_statistics.py '
        '--out writes it) or --train TRAIN.json.'
    )
    return None


def check_outputs(
    outputs: Sequence[str | None], inputs: Sequence[str | None]
) -> None:
    """Refuse to write over what is read.

    Raises:
        LongTailError: Naming the first such file.
    """
    read = {Path(path).resolve() for path in inputs if path is not None}
    for path in outputs:
        if path is not None and Path(path).resolve() in read:
            raise LongTailError(
                f'{path}: is read by this command; write to another file'
            )


def with_prefix(
    prefix: str, iou_type: str, values: Mapping[str, Any]
) -> dict[str, Any]:
    """Name metrics as mmengine's evaluator does: frequency_group/bbox_AP."""
    return {f'{prefix}/{iou_type}_{key}': v for key, v in values.items()}


def print_with_intervals(
    evaluation: Evaluation, args: argparse.Namespace
) -> dict[str, Interval]:
    """Print the means with intervals, and give the intervals.

    Args:
        evaluation (Evaluation): Of one detector.
        args (argparse.Namespace): With the options of the bootstrap.
    """
    [means] = bootstrap_means(
        [evaluation], args.bootstrap, args.seed, progress_console()
    )
    found = intervals(evaluation, means, args.confidence)
    print(evaluation.table(found))
    return found


def write_metrics(
    path: str | Path,
    metrics: Mapping[str, Any],
    found: Mapping[str, Interval],
    args: argparse.Namespace,
    **more: Any,
) -> None:
    """Write metrics, and how sure they are, as JSON.

    Args:
        path (str | Path): File to write.
        metrics (Mapping[str, Any]): By the names that the evaluator gives
            them, such as frequency_group/bbox_AP.
        found (Mapping[str, Interval]): Low and high of some of them.
        args (argparse.Namespace): With the options of the bootstrap.
        **more: Further entries.
    """
    content = more | {'metrics': dict(metrics)}
    if args.bootstrap:
        content['bootstrap'] = {
            'repeats': args.bootstrap,
            'seed': args.seed,
            'confidence': args.confidence,
            'intervals': {name: list(i) for name, i in found.items()},
        }
    write_atomic(path, json.dumps(content, indent=1) + '\n')

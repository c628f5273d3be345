"""Options and inputs of the tools for result files."""

import argparse

from mmdet_longtail.apis.evaluation import Bootstrap, ValidationSet
from mmdet_longtail.apis.report import ComparedDetectors
from mmdet_longtail.cli.options import (
    add_cfg_options,
    add_trust_config,
    fraction,
    positive_int,
    random_seed,
)
from mmdet_longtail.errors import check
from mmdet_longtail.evaluation.functional.back_ends import BACK_ENDS
from mmdet_longtail.structures.class_statistics import ClassStatistics

ADD_COUNTS = (
    'add --statistics STATS.json (tools/class_statistics.py --out writes it) '
    'or --train TRAIN.json'
)


def add_data_options(
    parser: argparse.ArgumentParser, needs_annotations: bool = True
) -> None:
    """Add the options for the data behind results."""
    parser.add_argument(
        '--ann',
        required=needs_annotations,
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
        help='annotations of the training set, to compute its counts',
    )
    parser.add_argument('--iou-type', choices=['bbox', 'segm'], default='bbox')


def add_detector_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `ComparedDetectors`."""
    parser.add_argument(
        'detectors', nargs='+', metavar='RESULTS.json_OR_CHECKPOINT'
    )
    add_data_options(parser, needs_annotations=False)
    parser.add_argument(
        '--images',
        metavar='FOLDER',
        help='folder that the file names in the annotations are relative to',
    )
    parser.add_argument(
        '--names',
        nargs='+',
        help='names of the detectors (default: their files or folders)',
    )
    add_cfg_options(parser, "overrides of the checkpoints' configs")
    add_trust_config(parser)


def open_detectors(args: argparse.Namespace) -> ComparedDetectors:
    """Open the detectors of `add_detector_options`."""
    detectors = ComparedDetectors(
        args.detectors,
        args.names,
        args.ann,
        given_statistics(args),
        args.images,
        args.iou_type,
        args.cfg_options,
    )
    if detectors.validation.statistics is None:
        print(f'No class counts as rare: {ADD_COUNTS}.')
    return detectors


def given_statistics(args: argparse.Namespace) -> ClassStatistics | None:
    """Load the counts of the training set, if there are any."""
    if args.statistics is not None:
        return ClassStatistics.load(args.statistics)
    if args.train is not None:
        return ClassStatistics.from_annotation_file(args.train)
    return None


def add_validation_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for the validation set and the rules."""
    add_data_options(parser)
    parser.add_argument(
        '--bin-edges',
        type=float,
        nargs='+',
        help='groups by count instead of rare, common and frequent',
    )
    parser.add_argument(
        '--bin-by',
        choices=['instance_count', 'image_count'],
        default='instance_count',
        help='count that --bin-edges splits',
    )
    parser.add_argument(
        '--max-detections',
        type=positive_int,
        metavar='K',
        help="number of best detections that count: per image by LVIS's "
        "rules (default: 300), per image and class by COCO's (default: 100)",
    )
    parser.add_argument(
        '--annotation-format',
        choices=['lvis', 'coco'],
        help='evaluation rules (default: lvis for files that list the '
        'classes that an image was checked for)',
    )
    parser.add_argument(
        '--back-end',
        choices=list(BACK_ENDS),
        default='fast',
        help='fast: hotcoco; reference: lvis or pycocotools',
    )


def read_validation_set(args: argparse.Namespace) -> ValidationSet:
    """Load the files of `add_validation_options`, and print what they lack."""
    statistics = given_statistics(args)
    check(
        statistics is not None or args.bin_edges is None,
        f'--bin-edges: groups need counts of the training set; {ADD_COUNTS}',
    )
    validation = ValidationSet.load(
        args.ann,
        args.iou_type,
        statistics,
        bin_edges=args.bin_edges,
        bin_by=args.bin_by,
        annotation_format=args.annotation_format,
        max_detections=args.max_detections,
        back_end=args.back_end,
    )
    if statistics is None:
        print(f'No groups: {ADD_COUNTS}.')
    return validation


def add_metric_options(parser: argparse.ArgumentParser) -> None:
    """Add the outputs of an evaluation, and the options of intervals."""
    parser.add_argument(
        '--json', metavar='OUT', help='write the metrics and their intervals'
    )
    parser.add_argument(
        '--per-class',
        metavar='CSV',
        help='write AP, recall, counts and confusions per class',
    )
    add_bootstrap_options(parser, default=0)


def add_bootstrap_options(
    parser: argparse.ArgumentParser, default: int
) -> None:
    """Add the options of `Bootstrap`; 0 draws by default are no interval."""
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
        help='share of the draws inside an interval',
    )
    parser.add_argument(
        '--seed', type=random_seed, default=0, help='random seed of the draws'
    )


def read_bootstrap(args: argparse.Namespace) -> Bootstrap | None:
    """Convert the options of `add_bootstrap_options`."""
    if not args.bootstrap:
        return None
    return Bootstrap(args.bootstrap, args.seed, args.confidence)

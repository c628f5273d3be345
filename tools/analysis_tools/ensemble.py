r"""Unite the detections of a detector with those of experts.

    python tools/analysis_tools/ensemble.py MAIN.segm.json COCO.segm.json \
        --map coco_to_lvis.csv --expert-ann expert.json --ann val.json \
        --train train.json --rescore rare=0.5 common=0.7 \
        --iou-type segm --out ENSEMBLE.segm.json

All are COCO results on the images of --ann. For each expert, in order, --map
names a CSV file with the columns extra (a class of the expert) and main (the
class of --ann that it is), and --expert-ann an annotation file whose
categories have the ids and names of the expert's classes. Detections of other
classes of the expert are left out.

Tan et al., CVPR 2020, Appendix A: scores of rare and common classes are small
for lack of positive samples, so an ensemble loses them; the authors improve
these scores, but do not say how. Here a score s of MAIN becomes s ** x, with
the exponent x that --rescore gives its group: it stays in [0, 1], and
detections of a class keep their order. Then, in each image, NMS within each
class, and the best 300 of what is left.
"""

from __future__ import annotations

import argparse
import dataclasses
import json

import numpy as np
from hotcoco import mask as mask_utils

from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import command_parser, fraction, positive_int
from mmdet_longtail.cli.result_files import (
    add_data_options,
    check_outputs,
    given_statistics,
)
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.evaluation.functional import Detections, GroundTruth
from mmdet_longtail.structures.annotations import parse_annotations
from mmdet_longtail.utils.class_names import (
    check_counted_classes,
    read_class_map,
)
from mmdet_longtail.utils.fileio import read_json, write_atomic

GROUPS = ('rare', 'common', 'frequent')


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = command_parser(__doc__)
    parser.add_argument('main', metavar='MAIN.json', help='results')
    parser.add_argument(
        'experts', metavar='EXPERT.json', nargs='*', help='results'
    )
    parser.add_argument(
        '--map',
        nargs='+',
        default=[],
        metavar='MAP.csv',
        help='one for each expert: columns extra and main',
    )
    parser.add_argument(
        '--expert-ann',
        nargs='+',
        default=[],
        metavar='ANN.json',
        help='one for each expert: annotations with its categories',
    )
    add_data_options(parser)
    parser.add_argument(
        '--rescore',
        nargs='+',
        default=[],
        type=exponent,
        metavar='GROUP=X',
        help='raise the scores of MAIN.json in the group (rare, common or '
        'frequent) to the power X, above 0 and at most 1',
    )
    parser.add_argument(
        '--nms-iou',
        type=fraction,
        default=0.5,
        help='of two detections of a class that overlap more, the better one '
        'stays (default: %(default)s)',
    )
    parser.add_argument(
        '--max-detections',
        type=positive_int,
        default=300,
        metavar='K',
        help='the best that are kept of an image (default: %(default)s)',
    )
    parser.add_argument('--out', required=True, metavar='OUT.json')
    return parser.parse_args()


def exponent(text: str) -> tuple[str, float]:
    """Read GROUP=X."""
    group, _, number = text.partition('=')
    if group not in GROUPS:
        raise argparse.ArgumentTypeError(
            f'{text!r} names no group; expected {", ".join(GROUPS)}=X'
        )
    try:
        value = float(number)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(
            f'{text!r} has no exponent above 0 and at most 1'
        )
    return group, value


def rescore(
    detections: Detections,
    ground_truth: GroundTruth,
    args: argparse.Namespace,
) -> Detections:
    """Raise the scores of groups of classes to a power.

    Raises:
        LongTailError: If counts of the training set are missing or of other
            classes, or a score is not in [0, 1].
    """
    if not args.rescore:
        return detections
    statistics = given_statistics(args)
    if statistics is None:
        raise LongTailError(
            '--rescore: groups need counts of the training set; add '
            '--statistics or --train'
        )
    check_counted_classes(ground_truth, statistics)
    wrong = (detections.score < 0) | (detections.score > 1)
    if wrong.any():
        raise LongTailError(
            f'{args.main}: the score {detections.score[wrong][0]:g} is not '
            'between 0 and 1, so --rescore cannot raise it to a power'
        )
    power_of = dict(args.rescore)
    power = np.array(
        [power_of.get(group, 1.0) for group in statistics.frequency_group()]
    )  # (C,)
    score = detections.score ** power[detections.label]
    return dataclasses.replace(detections, score=score)


def read_classes(path: str, images_of: GroundTruth | None) -> GroundTruth:
    """Read the categories of a file, and its images or those of another one.

    Raises:
        LongTailError: If the file is missing or broken.
    """
    content = read_json(path)
    source = path
    if isinstance(content, dict):
        # A test set has no annotations, and nothing here needs any.
        content['annotations'] = []
        if images_of is not None:
            content['images'] = images_of.images
            source = f'{images_of.source} with the categories of {path}'
    parse_annotations(content, path)
    return GroundTruth(content, source, 'coco')


def read_expert(
    results: str,
    class_map: str,
    annotations: str,
    ground_truth: GroundTruth,
    iou_type: str,
) -> Detections:
    """Read the detections of an expert as classes of the main data set.

    Raises:
        LongTailError: If a file is missing or broken, or of other images or
            classes.
    """
    own = read_classes(annotations, ground_truth)
    main_of = read_class_map(
        class_map,
        own.class_names,
        ground_truth.class_names,
        annotations,
        ground_truth.source,
    )
    label_of = {n: label for label, n in enumerate(ground_truth.class_names)}
    main_label = np.array(
        [
            label_of[main_of[name]] if name in main_of else -1
            for name in own.class_names
        ]
    )
    detections = Detections.load(results, own, iou_type)
    label = main_label[detections.label]
    kept = dataclasses.replace(detections, label=label)
    kept = kept.take(np.flatnonzero(label >= 0))
    print(f'{results}: {len(kept):,} of {len(detections):,} detections mapped')
    return kept


def nms(detections: Detections, iou_type: str, threshold: float) -> Detections:
    """Remove what overlaps a better detection of its class and image.

    Of equal scores, the first is the better one.
    """
    order = np.lexsort((-detections.score, detections.label, detections.image))
    image, label = detections.image[order], detections.label[order]
    starts = np.flatnonzero((np.diff(image) != 0) | (np.diff(label) != 0)) + 1
    kept: list[int] = []
    for rows in np.split(order, starts):
        if len(rows) > 1:
            rows = rows[best(overlaps(detections, rows, iou_type), threshold)]
        kept += rows.tolist()
    return detections.take(np.sort(np.array(kept, np.int64)))


def overlaps(
    detections: Detections, rows: np.ndarray, iou_type: str
) -> np.ndarray:
    """IoU of some detections with each other (k, k)."""
    if iou_type == 'segm':
        assert detections.masks is not None
        shapes = [detections.masks[row] for row in rows.tolist()]
    else:
        shapes = detections.box[rows].tolist()
    return np.asarray(mask_utils.iou(shapes, shapes, [False] * len(shapes)))


def best(iou: np.ndarray, threshold: float) -> list[int]:
    """Greedy NMS of k detections, best first: which rows stay."""
    stays: list[int] = []
    for row in range(len(iou)):
        if not (iou[row, stays] > threshold).any():
            stays.append(row)
    return stays


def main() -> None:
    """Unite and write."""
    args = parse_args()
    for option, paths in (
        ('--map', args.map),
        ('--expert-ann', args.expert_ann),
    ):
        if len(paths) != len(args.experts):
            raise LongTailError(
                f'{option}: found {len(paths)} files for {len(args.experts)} '
                'experts, expected one for each'
            )
    check_outputs(
        (args.out,),
        (
            args.main,
            *args.experts,
            *args.map,
            *args.expert_ann,
            args.ann,
            args.statistics,
            args.train,
        ),
    )
    ground_truth = read_classes(args.ann, None)
    found = Detections.load(args.main, ground_truth, args.iou_type)
    print(f'{args.main}: {len(found):,} detections')
    parts = [rescore(found, ground_truth, args)]
    for expert in zip(args.experts, args.map, args.expert_ann, strict=True):
        parts.append(read_expert(*expert, ground_truth, args.iou_type))
    united = nms(Detections.concatenate(parts), args.iou_type, args.nms_iou)
    united = united.best_per_image(args.max_detections)
    results = united.as_results(ground_truth)
    write_atomic(args.out, json.dumps(results))
    print(f'{args.out}: {len(united):,} detections')


if __name__ == '__main__':
    run(main)

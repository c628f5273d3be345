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

import argparse

from mmdet_longtail.apis.ensemble import ensemble_files
from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import (
    check_outputs,
    command_parser,
    fraction,
    positive_int,
)
from mmdet_longtail.cli.result_files import (
    add_data_options,
    given_statistics,
)
from mmdet_longtail.errors import check

GROUPS = ('rare', 'common', 'frequent')


def parse_args() -> argparse.Namespace:
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
        help='one per expert: columns extra and main',
    )
    parser.add_argument(
        '--expert-ann',
        nargs='+',
        default=[],
        metavar='ANN.json',
        help='one per expert: annotations with its categories',
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
        help='IoU threshold of NMS per class',
    )
    parser.add_argument(
        '--max-detections',
        type=positive_int,
        default=300,
        help='best detections kept per image',
    )
    parser.add_argument('--out', required=True, metavar='OUT.json')
    return parser.parse_args()


def exponent(text: str) -> tuple[str, float]:
    """Convert an argument GROUP=X."""
    group, _, number = text.partition('=')
    if group not in GROUPS:
        raise argparse.ArgumentTypeError(
            f'{text!r} names no group; expected {", ".join(GROUPS)}=X'
        )
    if not 0 < float(number) <= 1:
        raise argparse.ArgumentTypeError(
            f'{text!r} has no exponent above 0 and at most 1'
        )
    return group, float(number)


def main() -> None:
    args = parse_args()
    experts = args.experts
    companions = {'--map': args.map, '--expert-ann': args.expert_ann}
    for option, paths in companions.items():
        check(
            len(paths) == len(experts),
            f'{option}: found {len(paths)} files for {len(experts)} experts, '
            'expected one per expert',
        )
    inputs = [args.main, *experts, *args.map, *args.expert_ann]
    check_outputs([args.out], [*inputs, args.ann, args.statistics, args.train])
    ensemble_files(
        args.main,
        list(zip(experts, args.map, args.expert_ann, strict=True)),
        args.ann,
        args.out,
        iou_type=args.iou_type,
        statistics=given_statistics(args) if args.rescore else None,
        power_of=dict(args.rescore),
        nms_iou=args.nms_iou,
        max_detections=args.max_detections,
    )


if __name__ == '__main__':
    run(main)

r"""Evaluate detections in a COCO result file, without a model or images.

    python tools/evaluate.py RESULTS.bbox.json --ann val.json \
        --train train.json --bootstrap 200 --per-class classes.csv

tools/test.py --out writes such files, and so do other frameworks.
"""

import argparse

from mmdet_longtail.apis.evaluation import show_evaluation
from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import (
    check_outputs,
    command_parser,
    print_next,
)
from mmdet_longtail.cli.result_files import (
    add_metric_options,
    add_validation_options,
    read_bootstrap,
    read_validation_set,
)
from mmdet_longtail.evaluation.functional.detections import (
    DETECTIONS_PER_CLASS,
)


def parse_args() -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument('results', metavar='RESULTS.json')
    add_validation_options(parser)
    parser.add_argument(
        '--fixed-ap',
        action='store_true',
        help=f'add AP-Fixed: the best {DETECTIONS_PER_CLASS:,} detections '
        'per class, without a limit per image',
    )
    parser.add_argument(
        '--proposal-recall',
        action='store_true',
        help='add AR@k of the detections without their classes',
    )
    parser.add_argument(
        '--without-confusions',
        action='store_true',
        help='drop detections on an object of another class, to measure '
        'their effect',
    )
    add_metric_options(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    check_outputs(
        (args.per_class, args.json),
        (args.results, args.ann, args.statistics, args.train),
    )
    show_evaluation(
        args.results,
        read_validation_set(args),
        read_bootstrap(args),
        fixed_ap=args.fixed_ap,
        recall=args.proposal_recall,
        without_confusions=args.without_confusions,
        per_class_file=args.per_class,
        json_file=args.json,
    )
    print_next('compare', args.results, 'OTHER.json --ann', args.ann)


if __name__ == '__main__':
    run(main)

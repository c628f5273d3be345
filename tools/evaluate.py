r"""Evaluate detections in a COCO result file, without a model or images.

    python tools/evaluate.py RESULTS.bbox.json --ann val.json \
        --train train.json --bootstrap 200 --per-class classes.csv

tools/test.py --out writes such files, and so do other frameworks.
"""

import argparse

from mmdet_longtail.apis.evaluation import evaluate_file
from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import command_parser
from mmdet_longtail.cli.result_files import (
    add_bootstrap_options,
    add_validation_options,
    check_outputs,
    read_bootstrap,
    read_validation_set,
    write_metrics,
)
from mmdet_longtail.evaluation.functional import write_per_class_file
from mmdet_longtail.evaluation.functional.spec import (
    AP_PREFIX,
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
    add_bootstrap_options(parser, default=0)
    parser.add_argument(
        '--per-class',
        metavar='CSV',
        help='write AP, recall, counts and confusions per class',
    )
    parser.add_argument(
        '--json', metavar='OUT', help='write the metrics and their intervals'
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    check_outputs(
        (args.per_class, args.json),
        (args.results, args.ann, args.statistics, args.train),
    )
    validation = read_validation_set(args)
    bootstrap = read_bootstrap(args)
    evaluated = evaluate_file(
        args.results,
        validation,
        fixed_ap=args.fixed_ap,
        recall=args.proposal_recall,
        without_confusions=args.without_confusions,
        bootstrap=bootstrap,
    )
    truth = validation.ground_truth
    print(
        f'{args.results}: {evaluated.num_detections:,} detections in '
        f'{len(truth.images):,} images, by the rules of {truth.rules.upper()}'
    )
    if args.without_confusions:
        print(f'{evaluated.num_errors:,} lie on an object of another class')
    share = validation.checked_share()
    if share is not None:
        print(f'An image was checked for {share:.1%} of the classes.')
    if evaluated.num_errors == evaluated.num_detections:
        print('No detections: AP is 0 for every class with objects.')
    for table in evaluated.tables:
        print(f'\n{table}')
    if args.per_class is not None:
        evaluation = evaluated.evaluations[AP_PREFIX]
        write_per_class_file(
            args.per_class, {args.iou_type: evaluation}, validation.statistics
        )
        print(f'classes: {args.per_class}')
    if args.json is not None:
        write_metrics(
            args.json,
            evaluated.metrics,
            evaluated.intervals,
            bootstrap,
            results=args.results,
            annotations=args.ann,
        )
        print(f'metrics: {args.json}')


if __name__ == '__main__':
    run(main)

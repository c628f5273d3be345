r"""Evaluate detections that are in a file: no model, no images.

    python tools/evaluate.py RESULTS.bbox.json --ann val.json \
        --train train.json --bootstrap 200 --per-class classes.csv

Takes COCO results, such as tools/test.py --out writes.
"""

import argparse

import numpy as np
from rich import box
from rich.table import Table

from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.result_files import (
    add_bootstrap_options,
    add_validation_options,
    check_outputs,
    print_with_intervals,
    read_validation_set,
    with_prefix,
    write_metrics,
)
from mmdet_longtail.evaluation.functional import (
    UNLIMITED,
    Detections,
    EvaluationSpec,
    GroundTruth,
    Interval,
    evaluate,
    is_classification_error,
    write_per_class_file,
)
from mmdet_longtail.evaluation.metrics import (
    FixedAPMetric,
    FrequencyGroupMetric,
    ProposalRecallMetric,
)
from mmdet_longtail.evaluation.metrics.fixed_ap_metric import (
    DETECTIONS_PER_CLASS,
)
from mmdet_longtail.evaluation.metrics.proposal_recall_metric import (
    proposal_recall,
)
from mmdet_longtail.utils.console import table_console


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('results', metavar='RESULTS.json')
    add_validation_options(parser)
    parser.add_argument(
        '--fixed-ap',
        action='store_true',
        help=f'AP-Fixed too: the best {DETECTIONS_PER_CLASS:,} detections of '
        'each class, however many an image has',
    )
    parser.add_argument(
        '--proposal-recall',
        action='store_true',
        help='AR@k too, of the detections without their classes',
    )
    parser.add_argument(
        '--without-confusions',
        action='store_true',
        help='leave out detections that lie on an object of another class, '
        'to see what they cost',
    )
    add_bootstrap_options(parser, default=0)
    parser.add_argument(
        '--per-class',
        metavar='CSV',
        help='write AP, recall, counts and confusions of each class',
    )
    parser.add_argument(
        '--json', metavar='OUT', help='write the metrics, and intervals'
    )
    return parser.parse_args()


def print_recall(metrics: dict[str, float]) -> None:
    """Print what proposals cover."""
    table = Table(title='proposal recall', box=box.SIMPLE)
    table.add_column('mean')
    table.add_column('value', justify='right')
    for key, value in metrics.items():
        table.add_row(key, f'{value:.4f}')
    table_console().print(table)


def checked_share(ground_truth: GroundTruth) -> float:
    """Mean share of the classes that an image was checked for, 0..1."""
    found = set(zip(ground_truth.image.tolist(), ground_truth.label.tolist()))
    absent = sum(len(i['neg_category_ids']) for i in ground_truth.images)
    pairs = len(ground_truth.images) * ground_truth.num_classes
    return (len(found) + absent) / pairs


def main() -> None:
    """Evaluate, print, and write what was asked for."""
    args = parse_args()
    check_outputs(
        (args.per_class, args.json),
        (args.results, args.ann, args.statistics, args.train),
    )
    ground_truth, statistics, groups = read_validation_set(args)
    detections = Detections.load(args.results, ground_truth, args.iou_type)
    print(
        f'{args.results}: {len(detections):,} detections in '
        f'{len(ground_truth.images):,} images, by the rules of '
        f'{ground_truth.rules.upper()}'
    )
    if args.without_confusions:
        is_wrong = is_classification_error(
            EvaluationSpec(ground_truth, detections)
        )
        print(f'{is_wrong.sum():,} lie on an object of another class')
        detections = detections.take(np.flatnonzero(~is_wrong))
    if ground_truth.rules == 'lvis':
        share = checked_share(ground_truth)
        print(f'An image was checked for {share:.1%} of the classes.')
    if not len(detections):
        print('No detections: AP is 0 for every class with objects.')
    evaluations = {
        FrequencyGroupMetric.default_prefix: evaluate(
            EvaluationSpec(
                ground_truth, detections, args.max_detections, args.back_end
            ),
            groups,
        )
    }
    if args.fixed_ap:
        evaluations[FixedAPMetric.default_prefix] = evaluate(
            EvaluationSpec(
                ground_truth,
                detections.best_per_class(DETECTIONS_PER_CLASS),
                UNLIMITED,
                args.back_end,
            ),
            groups,
        )
    metrics: dict[str, float] = {}
    found: dict[str, Interval] = {}
    for prefix, evaluation in evaluations.items():
        print(f'\n{prefix}')
        if args.bootstrap:
            of_means = print_with_intervals(evaluation, args)
            found |= with_prefix(prefix, args.iou_type, of_means)
        else:
            print(evaluation.table())
        values = evaluation.metrics()
        metrics |= with_prefix(prefix, args.iou_type, values)
    if args.proposal_recall:
        recall = proposal_recall(
            EvaluationSpec(ground_truth, detections, None, args.back_end),
            groups,
        )
        print_recall(recall)
        prefix = ProposalRecallMetric.default_prefix
        metrics |= with_prefix(prefix, args.iou_type, recall)
    if args.per_class is not None:
        evaluation = evaluations[FrequencyGroupMetric.default_prefix]
        write_per_class_file(
            args.per_class, {args.iou_type: evaluation}, statistics
        )
        print(f'classes: {args.per_class}')
    if args.json is not None:
        write_metrics(
            args.json,
            metrics,
            found,
            args,
            results=args.results,
            annotations=args.ann,
        )
        print(f'metrics: {args.json}')


if __name__ == '__main__':
    run(main)

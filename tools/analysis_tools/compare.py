r"""Compare detections in COCO result files of the same validation set.

    python tools/analysis_tools/compare.py softmax.bbox.json bags.bbox.json \
        --ann val.json --train train.json --plot classes.png

tools/test.py --out writes such files, and so do other frameworks. The first
detector is the reference. Images are drawn with replacement, the same draws
for all detectors. A * marks a difference whose interval excludes 0.
"""

import argparse
import json
from dataclasses import asdict

from matplotlib.figure import Figure

from mmdet_longtail.apis.evaluation import (
    compare_files,
    name_detectors,
    with_prefix,
)
from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import command_parser
from mmdet_longtail.cli.result_files import (
    add_bootstrap_options,
    add_validation_options,
    bootstrap_settings,
    check_outputs,
    read_bootstrap,
    read_validation_set,
)
from mmdet_longtail.evaluation.functional.spec import AP_PREFIX
from mmdet_longtail.utils.console import table_console
from mmdet_longtail.utils.fileio import write_atomic
from mmdet_longtail.visualization.class_ap import plot_class_ap
from mmdet_longtail.visualization.figures import figure_bytes


def parse_args() -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument('first', metavar='RESULTS.json')
    parser.add_argument('others', nargs='+', metavar='RESULTS.json')
    add_validation_options(parser)
    parser.add_argument(
        '--names', nargs='+', help='names of the detectors (default: files)'
    )
    add_bootstrap_options(parser, default=200)
    parser.add_argument('--json', metavar='OUT', help='write all figures')
    parser.add_argument(
        '--plot',
        metavar='PNG',
        help='plot the AP of each class against that of the first detector',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    paths = [args.first, *args.others]
    check_outputs(
        (args.json, args.plot),
        (*paths, args.ann, args.statistics, args.train),
    )
    if args.plot:
        # An unknown format is an error before the long part.
        figure_bytes(Figure(), args.plot)
    names = name_detectors(paths, args.names)
    validation = read_validation_set(args)
    bootstrap = read_bootstrap(args)
    assert bootstrap is not None
    comparison = compare_files(
        dict(zip(names, paths, strict=True)), validation, bootstrap
    )
    for path, evaluation in zip(paths, comparison.evaluations.values()):
        if not len(evaluation.spec.detections):
            print(f'{path}: no detections, AP is 0 for every class.')
    for table in comparison.tables():
        table_console().print(table)
    print(
        f'In brackets: {100 * args.confidence:g} % of {args.bootstrap} draws '
        f'of the {len(validation.ground_truth.images):,} images; * excludes 0.'
    )
    if args.json is not None:
        detectors = [
            {'name': name, 'results': path}
            | {
                key: with_prefix(AP_PREFIX, args.iou_type, values)
                for key, values in (
                    ('metrics', evaluation.metrics()),
                    ('intervals', its_intervals),
                    (
                        'difference_to_first',
                        {mean: asdict(d) for mean, d in to_first.items()},
                    ),
                )
            }
            for (name, evaluation), path, its_intervals, to_first in zip(
                comparison.evaluations.items(),
                paths,
                comparison.intervals,
                comparison.differences,
                strict=True,
            )
        ]
        content = {
            'annotations': args.ann,
            'bootstrap': bootstrap_settings(bootstrap),
            'detectors': detectors,
        }
        write_atomic(args.json, json.dumps(content, indent=1) + '\n')
        print(f'figures: {args.json}')
    if args.plot is not None:
        figure = plot_class_ap(comparison.evaluations)
        write_atomic(args.plot, figure_bytes(figure, args.plot))
        print(f'plot: {args.plot}')


if __name__ == '__main__':
    run(main)

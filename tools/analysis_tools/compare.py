r"""Compare detections in COCO result files of the same validation set.

    python tools/analysis_tools/compare.py softmax.bbox.json bags.bbox.json \
        --ann val.json --train train.json --plot classes.png

tools/test.py --out writes such files, and so do other frameworks. The first
detector is the reference. Images are drawn with replacement, the same draws
for all detectors. A * marks a difference whose interval excludes 0.
"""

import argparse

from matplotlib.figure import Figure

from mmdet_longtail.apis.evaluation import (
    Bootstrap,
    name_detectors,
    show_comparison,
)
from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import (
    check_outputs,
    command_parser,
    print_next,
)
from mmdet_longtail.cli.result_files import (
    add_bootstrap_options,
    add_validation_options,
    read_validation_set,
)
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
    if args.plot is not None:
        # An unknown format is an error before the long part.
        figure_bytes(Figure(), args.plot)
    names = name_detectors(paths, args.names)
    show_comparison(
        dict(zip(names, paths, strict=True)),
        read_validation_set(args),
        Bootstrap(args.bootstrap, args.seed, args.confidence),
        json_file=args.json,
        picture=args.plot,
    )
    options = f'--ann {args.ann} --images FOLDER --out pictures'
    print_next('show', *paths, options)


if __name__ == '__main__':
    run(main)

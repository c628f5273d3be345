"""Count the classes of a COCO or LVIS file and suggest settings for it.

    python tools/class_statistics.py train.json --out stats.json --plot p.png

Prints a table and the suggestions, each with its rule. Needs neither torch
nor mmdet. ``ClassStatisticsHook(class_statistics=...)`` and this tool read
the JSON of ``--out``.
"""

import argparse

from mmdet_longtail.apis.class_statistics import show_class_statistics
from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import check_outputs, command_parser


def parse_args() -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument(
        'path',
        metavar='annotations',
        help='COCO or LVIS JSON, or a JSON that --out wrote',
    )
    parser.add_argument('--out', help='write the counts as JSON')
    parser.add_argument(
        '--plot',
        dest='counts_figure',
        metavar='PICTURE',
        help='draw the sorted counts (png, svg or pdf)',
    )
    parser.add_argument(
        '--eql',
        dest='tail_weight_figure',
        metavar='PICTURE',
        help="draw EQL's T(f) with the classes of this data on it",
    )
    parser.add_argument(
        '--bin-edges',
        type=float,
        nargs='+',
        help='bins by instance_count (default: the suggested ones)',
    )
    parser.add_argument(
        '--frequency-threshold',
        type=float,
        help='tail is image_frequency below it (default: the suggested one)',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    outputs = args.out, args.counts_figure, args.tail_weight_figure
    check_outputs(outputs, [args.path])
    show_class_statistics(**vars(args))


if __name__ == '__main__':
    run(main)

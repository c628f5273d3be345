r"""Sum what ClassifierMonitorHook logged, over ranges of iterations.

    longtail classifier-log work_dirs/softmax work_dirs/eql \
        --iterations 5-30 35-80

Prints per group of classes, over the logged iterations of a range:

    negative_to_positive    gradient from all negatives over that from
                            positives; above 1 the negatives win
    foreground_to_positive  the same of foreground negatives alone
    positive_rois           RoIs of the group's classes; with few RoIs the
                            numbers are rough
"""

import argparse
import re

from mmdet_longtail.apis.analyze_classifier import summarize_logs
from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import command_parser


def iterations(text: str) -> tuple[int, int]:
    """Convert a range such as 5-30."""
    ends = re.fullmatch(r'(\d+)-(\d+)', text)
    if ends is None or int(ends[1]) > int(ends[2]):
        raise argparse.ArgumentTypeError(
            f'{text} is not two iterations, the first one first, as in 5-30'
        )
    return int(ends[1]), int(ends[2])


def main() -> None:
    """Print one row per training, range and group."""
    parser = command_parser(__doc__)
    parser.add_argument(
        'work_dirs',
        nargs='+',
        metavar='WORK_DIR',
        help='training with ClassifierMonitorHook',
    )
    parser.add_argument(
        '--iterations',
        type=iterations,
        nargs='+',
        metavar='FIRST-LAST',
        help='ranges, both ends included (default: one, the whole log)',
    )
    args = parser.parse_args()
    summarize_logs(args.work_dirs, args.iterations)


if __name__ == '__main__':
    run(main)

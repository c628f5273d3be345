r"""Compare detectors on one page.

    longtail report work_dirs/softmax work_dirs/bags --out report.html
    longtail report softmax.bbox.json bags.bbox.json \
        --ann val.json --train train.json --images images/

Takes work directories and checkpoints, which carry their config and the
counts of their training set, and COCO results. All detectors are evaluated on
--ann, or on the validation set of the first checkpoint. The first detector is
the reference of the differences.
"""

import argparse
from pathlib import Path

from mmdet_longtail.apis.report import write_report
from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import check_outputs, command_parser
from mmdet_longtail.cli.result_files import (
    add_detector_options,
    open_detectors,
)


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = command_parser(__doc__)
    add_detector_options(parser)
    parser.add_argument('--out', default='report.html', help='page')
    return parser.parse_args()


def main() -> None:
    """Evaluate the detectors and write the page."""
    args = parse_args()
    given = (*args.detectors, args.ann, args.statistics, args.train)
    check_outputs([args.out], given)
    write_report(args.out, open_detectors(args))
    print(f'Report: {Path(args.out).resolve()}')


if __name__ == '__main__':
    run(main)

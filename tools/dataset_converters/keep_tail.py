r"""Keep the classes of an annotation file that have few boxes.

    python tools/dataset_converters/keep_tail.py TRAIN.json OUT.json \
        --fewer-than 100

OUT.json has the annotations of classes with fewer training boxes and the
images with such an annotation. All categories stay in their order, so labels
do not change. For training with OUT.json, give ClassStatisticsHook the counts
of the whole training set, from tools/class_statistics.py TRAIN.json --out.
"""

import argparse

from mmdet_longtail.apis.annotation_files import keep_tail
from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import (
    check_outputs,
    command_parser,
    positive_int,
)


def parse_args() -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument('annotations', metavar='TRAIN.json')
    parser.add_argument('out', metavar='OUT.json')
    parser.add_argument(
        '--fewer-than',
        type=positive_int,
        default=100,
        help='keep classes with fewer boxes',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    check_outputs([args.out], [args.annotations])
    keep_tail(args.annotations, args.out, args.fewer_than)


if __name__ == '__main__':
    run(main)

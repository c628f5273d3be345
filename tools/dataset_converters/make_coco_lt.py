r"""Make COCO-LT from COCO's training annotations.

    python tools/dataset_converters/make_coco_lt.py \
        instances_train2017.json SELECTION.json OUT
    python tools/dataset_converters/make_coco_lt.py \
        instances_train2017.json OUT --seed 0

SELECTION.json lists, per category, the images whose annotations of that
category are kept, and the number of these annotations:

    {"categories": [
        {"category_id": 1, "instance_count": 2, "image_ids": [36, 49]}]}

OUT gets these annotations and the images with such an annotation. Expected
and obtained counts are printed. Other counts mean another file than COCO's;
the exit status is then 1 unless --allow-differences is given.

Without SELECTION.json, images are drawn: a COCO-LT-like dataset with as many
classes and instances per bin as the published one, as far as whole images
allow, but with other images. COCO's rarest classes are its rarest too.
"""

import argparse
from pathlib import Path

from mmdet_longtail.apis.coco_lt import make_coco_lt
from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import (
    check_outputs,
    command_parser,
    random_seed,
)

TOTALS = Path(__file__).parents[2] / 'configs' / 'coco_lt' / 'totals.json'


def parse_args() -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument('annotation_file', metavar='COCO.json')
    parser.add_argument(
        'selection_file',
        nargs='?',
        metavar='SELECTION.json',
        help='the images per category (default: draw them)',
    )
    parser.add_argument('out', metavar='OUT')
    parser.add_argument(
        '--totals',
        dest='totals_file',
        default=TOTALS,
        help='bins, and the classes and instances per bin, which are drawn '
        'without a selection',
    )
    parser.add_argument(
        '--seed', type=random_seed, default=0, help='random seed'
    )
    parser.add_argument(
        '--allow-differences',
        action='store_true',
        help='write OUT even if its counts are not the expected ones',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    check_outputs([args.out], [args.annotation_file, args.selection_file])
    make_coco_lt(**vars(args))


if __name__ == '__main__':
    run(main)

r"""Add images of another dataset to an annotation file.

    python tools/dataset_converters/merge_annotations.py MAIN.json EXTRA.json \
        --map map.csv --file-prefix ../openimages/ --out MERGED.json

Both are COCO or LVIS annotations. Images of EXTRA.json with a box of a mapped
class are added, with their boxes of mapped classes, and masks if they have
any. LoadOptionalMasks and OptionalMaskFCNMaskHead train with objects without
a mask. Categories stay those of MAIN.json, including the image counts in them.

If MAIN.json lists the classes that an image was checked for, an added image
is checked only for the classes that it has boxes of: its neg_category_ids and
not_exhaustive_category_ids are empty.
"""

import argparse

from mmdet_longtail.apis.annotation_files import merge_annotations
from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import check_outputs, command_parser


def parse_args() -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument('main_file', metavar='MAIN.json')
    parser.add_argument('extra_file', metavar='EXTRA.json')
    parser.add_argument(
        '--map',
        dest='class_map',
        required=True,
        metavar='MAP.csv',
        help='columns extra and main: classes of EXTRA.json and the classes '
        'of MAIN.json that they become',
    )
    parser.add_argument(
        '--file-prefix',
        default='',
        metavar='TEXT',
        help='put before the file names of EXTRA.json, to make them relative '
        'to the image folder of MAIN.json, such as ../openimages/',
    )
    parser.add_argument('--out', required=True, metavar='MERGED.json')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    inputs = args.main_file, args.extra_file, args.class_map
    check_outputs([args.out], inputs)
    merge_annotations(**vars(args))


if __name__ == '__main__':
    run(main)

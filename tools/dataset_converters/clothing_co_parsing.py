r"""Convert Clothing Co-Parsing to a long-tailed detection dataset.

    git clone https://github.com/bearpaw/clothing-co-parsing
    python tools/dataset_converters/clothing_co_parsing.py \
        clothing-co-parsing data/ccp_lt

Photographs and pixel labels are scaled by 0.6, connected components of at
least 36 pixels are the objects, and a fifth of the images of each class are
for validation. OUT has images/, annotations/train.json and val.json in LVIS v1
format, and the licence (Apache-2.0).
"""

import argparse

from mmdet_longtail.apis.clothing_co_parsing import convert_clothing_co_parsing
from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import command_parser


def parse_args() -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument('clone', metavar='CLONE', help='clone of the dataset')
    parser.add_argument('out', metavar='OUT', help='folder to write')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    convert_clothing_co_parsing(args.clone, args.out)


if __name__ == '__main__':
    run(main)

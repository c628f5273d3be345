r"""Generate `glyphs`, a long-tailed detection dataset in LVIS v1 format.

python tools/dataset_converters/make_glyphs.py --out data/glyphs
python tools/dataset_converters/make_glyphs.py \
        --out data/glyphs_balanced --imbalance 1
python tools/dataset_converters/make_glyphs.py \
        --out data/glyphs_400 --classes 400 --images 4000 \
        --checked-share 0.02 --val-checked-shares 0.05 0.35 1
"""

import argparse
from dataclasses import fields

from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import command_parser, positive_int
from mmdet_longtail.testing.glyphs import GlyphSettings, make_glyphs

LISTS = ('val_checked_shares', 'fonts')
HELP = {
    '--classes': 'number of characters',
    '--images': 'number of training images',
    '--image-size': 'width and height in pixels',
    '--imbalance': 'images of the most frequent class divided by those of the '
    'rarest, 1 for a balanced dataset',
    '--seed': 'random seed',
}


def parse_args() -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument('--out', default='data/glyphs', help='folder to write')
    for field in fields(GlyphSettings):
        option = '--' + field.name.removeprefix('num_').replace('_', '-')
        if option in HELP:
            parser.add_argument(
                option,
                dest=field.name,
                type=type(field.default),
                default=field.default,
                help=HELP[option],
            )
    parser.add_argument(
        '--checked-share',
        type=float,
        help='share of the classes that each image is checked for, 0 to 1, '
        'by neg_category_ids besides the classes that it contains '
        '(default: a third of those that it does not contain)',
    )
    parser.add_argument(
        '--val-checked-shares',
        nargs='+',
        type=float,
        default=[],
        metavar='SHARE',
        help='further shares: annotations/val_checked_SHARE.json is of the '
        'images of val.json, checked for this share of the classes',
    )
    parser.add_argument(
        '--fonts',
        nargs='+',
        default=[],
        metavar='PATH',
        help="fonts or folders of fonts besides matplotlib's; a class is a "
        'letter or number that eight fonts have',
    )
    parser.add_argument(
        '--processes',
        type=positive_int,
        help='processes that draw (default: cores)',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    names = [field.name for field in fields(GlyphSettings)]
    values = {name: getattr(args, name) for name in names}
    lists = {name: tuple(values[name]) for name in LISTS}
    settings = GlyphSettings(**values | lists)
    written = make_glyphs(args.out, settings, args.processes)
    print(f'{args.out}: {"written" if written else "already there"}')


if __name__ == '__main__':
    run(main)

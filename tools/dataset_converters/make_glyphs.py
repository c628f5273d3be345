"""Generate `glyphs`, a long-tailed detection set in LVIS v1 format.

python tools/dataset_converters/make_glyphs.py --out data/glyphs
python tools/dataset_converters/make_glyphs.py --out data/glyphs_balanced --imbalance 1
"""

import argparse

from mmdet_longtail.cli.main import run
from mmdet_longtail.testing.glyphs import GlyphSettings, make_glyphs


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = GlyphSettings()
    parser.add_argument('--out', default='data/glyphs', help='folder to write')
    parser.add_argument(
        '--classes',
        type=int,
        default=default.num_classes,
        help=f'number of characters (default {default.num_classes})',
    )
    parser.add_argument(
        '--images',
        type=int,
        default=default.num_images,
        help=f'number of training images (default {default.num_images})',
    )
    parser.add_argument(
        '--image-size',
        type=int,
        default=default.image_size,
        help=f'width and height in pixels (default {default.image_size})',
    )
    parser.add_argument(
        '--imbalance',
        type=float,
        default=default.imbalance,
        help='images of the most frequent class over those of the rarest, '
        f'1 for a balanced set (default {default.imbalance:g})',
    )
    parser.add_argument(
        '--seed', type=int, default=default.seed, help='default 0'
    )
    parser.add_argument(
        '--processes', type=int, help='processes that draw (default: cores)'
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    settings = GlyphSettings(
        num_classes=args.classes,
        num_images=args.images,
        image_size=args.image_size,
        imbalance=args.imbalance,
        seed=args.seed,
    )
    written = make_glyphs(args.out, settings, args.processes)
    print(f'{args.out}: {"written" if written else "already there"}')


if __name__ == '__main__':
    run(main)

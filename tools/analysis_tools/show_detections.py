r"""Show detections in images, detectors side by side, rare classes first.

    longtail show softmax.bbox.json bags.bbox.json \
        --ann val.json --images images/ --train train.json --out shown

Takes COCO results, such as tools/test.py --out writes, and checkpoints or
work directories. A checkpoint carries its config and is run on the images to
show. Its counts decide which classes are rare, unless --statistics or --train
is given. Its validation set is shown, unless --ann and --images are given.
Writes one figure per image, and index.html.

Detections are matched as in the evaluation: by LVIS's rules the best 300 per
image take part, by COCO's the best 100 per image and class. True positives
are green, false positives red, missed objects dashed. All true positives are
drawn, whatever their score. For their classes, the false positives that reach
the lowest score of a true positive in the image are drawn. For all other
classes together, the five best-scored false positives are drawn. By LVIS's
rules, detections of classes that an image was not checked for are not drawn.
"""

import argparse
from pathlib import Path

from mmdet_longtail.apis.report import check_new_folder, show_detections
from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import command_parser, print_next
from mmdet_longtail.cli.result_files import (
    add_detector_options,
    open_detectors,
)


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = command_parser(__doc__)
    add_detector_options(parser)
    parser.add_argument(
        '--out',
        required=True,
        metavar='FOLDER',
        help='folder to create for the figures and index.html',
    )
    parser.add_argument(
        '--num-images',
        type=int,
        default=20,
        help='maximum number of images, chosen from the rare classes in turn, '
        'then from the others (default: %(default)s)',
    )
    parser.add_argument(
        '--classes',
        nargs='+',
        help='show only these classes, in images with objects of them',
    )
    parser.add_argument(
        '--score-thr',
        type=float,
        help='draw the detections that count and have at least this score, '
        'instead of the rule above',
    )
    parser.add_argument(
        '--iou-thr',
        type=float,
        default=0.5,
        help='smallest overlap of a true positive',
    )
    return parser.parse_args()


def main() -> None:
    """Choose images, run the detectors on them, draw and write."""
    args = parse_args()
    check_new_folder(args.out)
    rules = args.num_images, args.classes, args.score_thr, args.iou_thr
    number = show_detections(args.out, open_detectors(args), *rules)
    page = Path(args.out, 'index.html').resolve()
    print(f'{number} pictures: {page}')
    print_next('report', *args.detectors, '--out report.html')


if __name__ == '__main__':
    run(main)

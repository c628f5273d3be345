r"""Choose a score threshold per class on held-out images, by the best F1.

    longtail score-thresholds results.bbox.json --ann held_out.json \
        --train train.json --out thresholds.json
    longtail predict CHECKPOINT IMAGES --thresholds thresholds.json --out DIR

Takes COCO results, such as tools/test.py --out writes, or a checkpoint or
work directory, which is run on the images. Classes with few objects, or of
which none is found, share one threshold. F1 is measured on the same images,
so it is optimistic.
"""

from mmdet_longtail.apis.score_thresholds import choose_score_thresholds
from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import (
    check_outputs,
    command_parser,
    positive_int,
    print_next,
)
from mmdet_longtail.cli.result_files import (
    add_detector_options,
    open_detectors,
)
from mmdet_longtail.utils.checks import check_numbers


def main() -> None:
    parser = command_parser(__doc__)
    add_detector_options(parser)
    parser.add_argument(
        '--out', required=True, metavar='JSON', help='file to write'
    )
    parser.add_argument(
        '--min-objects',
        type=positive_int,
        default=10,
        help='smallest number of objects of a class with a threshold of its '
        'own',
    )
    parser.add_argument(
        '--iou-thr',
        type=float,
        default=0.5,
        help='smallest overlap of a true positive',
    )
    args = parser.parse_args()
    check_numbers('', '(0, 1]', **{'--iou-thr': args.iou_thr})
    check_outputs(
        [args.out], (*args.detectors, args.ann, args.statistics, args.train)
    )
    detectors = open_detectors(args)
    choose_score_thresholds(
        detectors, args.out, args.min_objects, args.iou_thr
    )
    print_next('predict CHECKPOINT IMAGES --out DIR --thresholds', args.out)


if __name__ == '__main__':
    run(main)

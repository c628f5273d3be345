r"""Detect objects in images by a checkpoint alone: pictures and one JSON file.

    longtail predict work_dirs/mine/epoch_12.pth photos --out predictions
    longtail predict work_dirs/mine 'photos/*.jpg' --out predictions \
        --thresholds thresholds.json

Config and classes come from the checkpoint. The folder --out gets pictures/
and predictions.json, which has the images, the categories, and the detections
in the format of COCO results. `longtail score-thresholds` chooses a threshold
per class: one threshold for all shows hardly any rare class.
"""

from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import (
    add_cfg_options,
    add_trust_config,
    command_parser,
    print_next,
)


def main() -> None:
    parser = command_parser(__doc__)
    parser.add_argument(
        'checkpoint', help='checkpoint, or work directory of a training'
    )
    parser.add_argument(
        'images',
        nargs='+',
        help="files, folders, or patterns in quotes such as 'photos/*.jpg'",
    )
    parser.add_argument(
        '--out', required=True, metavar='DIR', help='folder to create'
    )
    limits = parser.add_mutually_exclusive_group()
    limits.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        help='smallest score of a detection',
    )
    limits.add_argument(
        '--thresholds',
        metavar='JSON',
        help='smallest score per class, a file of `longtail score-thresholds`',
    )
    parser.add_argument(
        '--no-pictures',
        dest='pictures',
        action='store_false',
        help='write predictions.json only',
    )
    add_cfg_options(parser, "overrides of the checkpoint's config")
    add_trust_config(parser)
    args = parser.parse_args()

    from mmdet_longtail.apis.predict import predict

    content = predict(**vars(args))
    num_images, found = len(content['images']), content['annotations']
    num_empty = num_images - len({result['image_id'] for result in found})
    print(
        f'{len(found):,} detections of '
        f'{len({result["category_id"] for result in found}):,} classes in '
        f'{num_images:,} images, {num_empty:,} of them without any: {args.out}'
    )
    if args.thresholds is None:
        print_next(
            'score-thresholds',
            args.checkpoint,
            '--ann HELD_OUT.json --images FOLDER --out thresholds.json',
        )


if __name__ == '__main__':
    run(main)

"""Give a checkpoint's classifiers the layout of another loss.

    longtail convert softmax.pth configs/bags/....py bags.pth

The box classifier of the result has the columns of the losses in CONFIG; the
rows of the classes are kept where the two layouts allow it. The result is a
checkpoint to begin with: load_from for a training, or a test.
"""

import argparse
import os
from pathlib import Path

from mmengine.registry import init_default_scope

from mmdet_longtail.apis.runner import load_config
from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import add_cfg_options, command_parser
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.utils.classifier_conversion import (
    SOURCES,
    convert_checkpoint,
)
from mmdet_longtail.structures import Checkpoint
from mmdet_longtail.structures.class_statistics import FORMAT, ClassStatistics
from mmdet_longtail.utils.fileio import read_json


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    choices = '\n'.join(
        f'  {name:14} {text}' for name, text in SOURCES.items()
    )
    parser = command_parser(
        __doc__, epilog=f'sources (C classes, G bins):\n{choices}'
    )
    parser.add_argument('checkpoint', help='of mmdet 1.x, 2.x or 3.x')
    parser.add_argument('config', help='the detector that it becomes')
    parser.add_argument('out', help='checkpoint to write')
    parser.add_argument(
        '--source',
        choices=['auto', *SOURCES],
        default='auto',
        help='columns of the checkpoint (default: what its config says, else '
        'by their number)',
    )
    parser.add_argument(
        '--class-statistics',
        metavar='FILE',
        help='counts of the training set, by tools/class_statistics.py --out '
        'or a COCO or LVIS annotation file (default: those in the checkpoint)',
    )
    add_cfg_options(parser)
    return parser.parse_args()


def read_statistics(path: str) -> ClassStatistics:
    """Read counts, or count an annotation file."""
    content = read_json(path)
    if isinstance(content, dict) and content.get('format') == FORMAT:
        return ClassStatistics.load(path)
    return ClassStatistics.from_annotation_file(path)


def main() -> None:
    """Convert and write."""
    args = parse_args()
    config = load_config(args.config, args.cfg_options)
    init_default_scope(config.get('default_scope', 'mmdet'))
    checkpoint = Checkpoint.load(args.checkpoint)
    if os.path.realpath(args.out) == os.path.realpath(args.checkpoint):
        raise LongTailError(
            f'{args.out}: is the checkpoint itself; give another name to write'
        )
    statistics = None
    if args.class_statistics is not None:
        statistics = read_statistics(args.class_statistics)
    converted = convert_checkpoint(checkpoint, config, args.source, statistics)
    converted.save(args.out)
    print(f'Wrote {args.out}. Train it, or test it as it is:')
    out = Path(args.out).resolve()
    print(
        f'  python tools/train.py {args.config} --cfg-options load_from={out}'
    )
    if converted.class_statistics is not None:
        print(f'  python tools/test.py {args.config} {args.out}')


if __name__ == '__main__':
    run(main)

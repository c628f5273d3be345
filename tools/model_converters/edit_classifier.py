r"""Edit the classifiers of a trained detector without training.

    longtail convert softmax.pth configs/bags/....py bags.pth
    longtail tau-normalize CONFIG CHECKPOINT OUT.pth --tau 0.7
    longtail nearest-class-mean CONFIG CHECKPOINT OUT.pth --feature conv
    longtail fold CONFIG CHECKPOINT OUT.pth

    convert             Convert classifiers to the losses of a config.
    tau-normalize       Equalize the norms of classifier rows (tau-norm).
    nearest-class-mean  Classify RoIs by the nearest class mean (NCM).
    fold                Fold learned scales (LWS) into classifier rows.

All but convert write OUT.pth and beside it OUT.py, the config that tests it.
"""

import argparse
import inspect
from collections.abc import Callable
from functools import partial

from mmdet_longtail.apis.edit_classifier import (
    convert,
    edit_classifier,
    fold_weight_scaling,
    nearest_class_mean,
    tau_normalize,
)
from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import (
    add_cfg_options,
    add_held_out_options,
    command_parser,
)
from mmdet_longtail.models.roi_heads.bbox_heads.class_mean_bbox_head import (
    FEATURES,
)
from mmdet_longtail.models.utils.classifier_conversion import SOURCES

COMMANDS: dict[str, Callable[..., None]] = {
    'convert': convert,
    'tau-normalize': partial(edit_classifier, tau_normalize),
    'nearest-class-mean': partial(edit_classifier, nearest_class_mean),
    'fold': partial(edit_classifier, fold_weight_scaling),
}


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = command_parser(__doc__)
    subparsers = parser.add_subparsers(
        dest='command', metavar='COMMAND', required=True
    )

    def add_command(name: str, method: Callable) -> argparse.ArgumentParser:
        text, _, _ = (inspect.getdoc(method) or '').partition('\n\nArgs:')
        command = subparsers.add_parser(
            name,
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            argument_default=argparse.SUPPRESS,
        )
        if method is not convert:
            command.add_argument('config', help='config whose data is used')
            command.add_argument('checkpoint', help='detector to edit')
            command.add_argument('out', help='checkpoint to write, .pth')
        add_cfg_options(command)
        return command

    command = add_command('convert', convert)
    command.add_argument('checkpoint', help='of mmdet 1.x, 2.x or 3.x')
    command.add_argument('config', help='the detector that it becomes')
    command.add_argument('out', help='checkpoint to write')
    command.add_argument(
        '--source',
        choices=['auto', *SOURCES],
        help='columns of the checkpoint (default: by its config, else by '
        'their number)',
    )
    command.add_argument(
        '--class-statistics',
        metavar='FILE',
        help='counts of the training set, by tools/class_statistics.py --out '
        'or a COCO or LVIS annotation file (default: those in the checkpoint)',
    )
    command.epilog = 'sources (C classes, G bins):\n' + '\n'.join(
        f'  {name:14} {text}' for name, text in SOURCES.items()
    )

    command = add_command('tau-normalize', tau_normalize)
    command.add_argument(
        '--tau',
        type=float,
        nargs='+',
        help='0 changes nothing, 1 makes all rows equally long (default: '
        'the best of 0 0.25 0.5 0.75 1)',
    )
    command.add_argument(
        '--as-published',
        action='store_true',
        help='m = 1: classes get another scale than background has',
    )
    command.add_argument(
        '--select',
        action='store_true',
        help='use the changed scores only of RoIs that the detector takes for '
        'an object and the changed scores for a tail class',
    )
    command.add_argument(
        '--fewer-than',
        type=float,
        metavar='N',
        help='with --select: a tail class has fewer training boxes '
        '(default: 100)',
    )
    add_held_out_options(command)

    command = add_command('nearest-class-mean', nearest_class_mean)
    command.add_argument(
        '--feature',
        choices=FEATURES,
        help="fc: the last shared fc's output before its ReLU; conv: the "
        'flattened RoI feature (default: fc)',
    )
    command.add_argument(
        '--temperature',
        type=float,
        nargs='+',
        help='factor of the cosines (default: the best of 5 10 20 40 80)',
    )
    add_held_out_options(command)

    add_command('fold', fold_weight_scaling)
    return parser.parse_args()


def main() -> None:
    """Edit the classifiers and write the checkpoint."""
    options = vars(parse_args())
    COMMANDS[options.pop('command')](**options)


if __name__ == '__main__':
    run(main)

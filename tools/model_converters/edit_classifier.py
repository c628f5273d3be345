r"""Edit the classifiers of a trained detector without training.

    longtail calibrate CONFIG CHECKPOINT OUT.pth --method norcal
    longtail convert softmax.pth configs/bags/....py bags.pth
    longtail nearest-class-mean CONFIG CHECKPOINT OUT.pth --feature conv
    longtail fold CONFIG CHECKPOINT OUT.pth

    calibrate           Calibrate classifiers: NorCal, LogN, FRACAL, tau-norm.
    convert             Convert classifiers to the losses of a config.
    nearest-class-mean  Classify RoIs by the nearest class mean (NCM).
    fold                Fold learned scales (LWS) into classifier rows.

All but convert write OUT.pth and beside it OUT.py, the config that tests it.
"""

import argparse
import inspect
from collections.abc import Callable
from functools import partial

from mmdet_longtail.apis import edit_classifier as api
from mmdet_longtail.apis.calibrate import METHODS, calibrate
from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import (
    add_cfg_options,
    add_held_out_options,
    add_trust_config,
    command_parser,
)
from mmdet_longtail.models.roi_heads.bbox_heads.class_mean_bbox_head import (
    FEATURES,
)
from mmdet_longtail.models.utils.classifier_conversion import SOURCES

COMMANDS: dict[str, Callable] = {
    'calibrate': calibrate,
    'convert': api.convert,
    'nearest-class-mean': api.nearest_class_mean,
    'fold': api.fold_weight_scaling,
}
FILES = {
    'config': 'config whose data is used',
    'checkpoint': 'detector to edit: a checkpoint, or its work directory',
    'out': 'checkpoint to write, .pth',
}
FILES_OF_CONVERT = {
    'checkpoint': 'of mmdet 1.x, 2.x or 3.x',
    'config': 'the detector that it becomes',
    'out': 'checkpoint to write',
}


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = command_parser(__doc__)
    subparsers = parser.add_subparsers(
        dest='command', metavar='COMMAND', required=True
    )
    for name, method in COMMANDS.items():
        text, _, _ = (inspect.getdoc(method) or '').partition('\n\nRaises:')
        command = subparsers.add_parser(
            name,
            description=text,
            formatter_class=parser.formatter_class,
            argument_default=argparse.SUPPRESS,
        )
        files = FILES_OF_CONVERT if name == 'convert' else FILES
        for file, description in files.items():
            command.add_argument(file, help=description)
        add_cfg_options(command)
        add_trust_config(command)
        if name in ('calibrate', 'nearest-class-mean'):
            add_held_out_options(command)

    add = subparsers.choices['convert'].add_argument
    add(
        '--source',
        choices=['auto', *SOURCES],
        help='columns of the checkpoint (default: by its config, else by '
        'their number)',
    )
    add(
        '--class-statistics',
        metavar='FILE',
        help='counts of the training set, by tools/class_statistics.py --out '
        'or a COCO or LVIS annotation file (default: those in the checkpoint)',
    )
    subparsers.choices['convert'].epilog = '\n'.join(
        ['sources (C classes, G bins):']
        + [f'  {name:14} {text}' for name, text in SOURCES.items()]
    )
    add = subparsers.choices['calibrate'].add_argument
    add('--method', choices=[*METHODS], required=True, help='calibration')
    add(
        '--strength',
        type=float,
        nargs='+',
        help='gamma of norcal, tau of logit-adjustment and tau-norm, share of '
        'fracal and logn, which have 1 as published (default: the best of 0 '
        '0.2 0.4 0.6 0.8 1)',
    )
    add(
        '--as-published',
        action='store_true',
        help='with tau-norm: m = 1, which gives the classes another scale '
        'than background',
    )
    add(
        '--select',
        action='store_true',
        help='with tau-norm: use the changed scores only for RoIs that are an '
        'object by the old scores and a tail class by the changed ones',
    )
    add(
        '--fewer-than',
        type=float,
        metavar='N',
        help='with --select: a tail class has fewer training boxes '
        '(default: 100)',
    )
    add = subparsers.choices['nearest-class-mean'].add_argument
    add(
        '--feature',
        choices=FEATURES,
        help="fc: the last shared fc's output before its ReLU; conv: the "
        'flattened RoI feature (default: fc)',
    )
    add(
        '--temperature',
        type=float,
        nargs='+',
        help='factor of the cosines (default: the best of 5 10 20 40 80)',
    )
    return parser.parse_args()


def main() -> None:
    """Edit the classifiers and write the checkpoint."""
    options = vars(parse_args())
    command = COMMANDS[options.pop('command')]
    edit = (
        command
        if command in (calibrate, api.convert)
        else partial(api.edit_classifier, command)
    )
    edit(**options)


if __name__ == '__main__':
    run(main)

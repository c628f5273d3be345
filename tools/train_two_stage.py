r"""Train a detector, then its classifier again, and compare the two.

    python tools/train_two_stage.py \
        configs/glyphs/faster-rcnn_r18_fpn_bags-classifier_glyphs.py
    python tools/train_two_stage.py --base-checkpoint work_dirs/mine

The first command trains the base_config of CONFIG, gives its classifier the
layout that CONFIG needs, trains CONFIG from there and evaluates both. With
--base-checkpoint the base is a detector that is trained already. Without
CONFIG, the second stage is Balanced Group Softmax on the data and the
schedule of the config in that checkpoint. The same command resumes after an
interruption; finished steps are kept.
"""

import signal

from mmdet_longtail.apis.two_stage import train_two_stage
from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import (
    add_cached,
    add_cfg_options,
    add_search_lr,
    add_trust_config,
    command_parser,
    positive_int,
    random_seed,
)


def main() -> None:
    parser = command_parser(__doc__)
    parser.add_argument(
        'config',
        nargs='?',
        metavar='CONFIG',
        help='config of the second stage, with a base_config',
    )
    parser.add_argument(
        '--base-checkpoint',
        metavar='FILE',
        help='a trained first stage: a file, an address, or the work '
        'directory of a training (default: train base_config)',
    )
    parser.add_argument(
        '--work-dir',
        default='work_dirs/two_stage',
        help='folder for a directory per training, and their configs '
        '(default: %(default)s)',
    )
    parser.add_argument(
        '--seed',
        type=random_seed,
        help="of both stages (default: the configs')",
    )
    parser.add_argument(
        '--nproc-per-node',
        dest='num_processes',
        type=positive_int,
        metavar='N',
        help='train and evaluate in N processes, by torchrun',
    )
    add_cached(parser)
    add_search_lr(parser)
    add_cfg_options(parser, 'overrides for both stages')
    add_trust_config(parser)
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    train_two_stage(**vars(args))


if __name__ == '__main__':
    run(main)

"""Train a detector.

The output is that of mmdet's own train.py, and metrics.json in the work
directory: the metrics of the last validation. With runner_type =
'mmdet.ResumableRunner' in the config (docs/survival.md), SIGTERM and SIGUSR1
end the training with exit status 75, and --resume continues it.
"""

from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import add_runner_options, command_parser


def main() -> None:
    parser = command_parser(__doc__)
    add_runner_options(parser)
    parser.add_argument(
        '--amp', action='store_true', help='train with mixed precision'
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate with the batch size',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='resume from a checkpoint; without one, or with "auto", from '
        'the latest in the work directory, or train from the start',
    )
    args = parser.parse_args()

    from mmdet_longtail.apis.train import train_detector

    train_detector(**vars(args))


if __name__ == '__main__':
    run(main)

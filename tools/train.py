"""Train a detector.

The output is that of mmdet's own train.py, and metrics.json in the work
directory: the metrics of the last validation. With runner_type =
'mmdet.ResumableRunner' in the config (docs/survival.md), SIGTERM and SIGUSR1
end the training with exit status 75, and --resume continues it.
"""

from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import add_train_options, command_parser


def main() -> None:
    parser = command_parser(__doc__)
    add_train_options(parser)
    args = parser.parse_args()

    from mmdet_longtail.apis.train import train_detector

    train_detector(**vars(args))


if __name__ == '__main__':
    run(main)

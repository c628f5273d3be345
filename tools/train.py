"""Train a detector.

The output is that of mmdet's own train.py, and metrics.json in the work
directory: the metrics of the last validation. With runner_type =
'mmdet.ResumableRunner' in the config (docs/survival.md), SIGTERM and SIGUSR1
end the training with exit status 75, and --resume continues it.
"""

from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import (
    add_train_options,
    command_parser,
    print_next,
)


def main() -> None:
    parser = command_parser(__doc__)
    add_train_options(parser)
    args = parser.parse_args()

    from mmengine.dist import is_main_process

    from mmdet_longtail.apis.train import train_detector

    metrics = train_detector(**vars(args))
    if metrics is not None and is_main_process():
        print_next('test', args.config, 'CHECKPOINT --out results/NAME')


if __name__ == '__main__':
    run(main)

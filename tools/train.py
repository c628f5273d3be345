"""Train a detector.

Writes what mmdet's own train.py writes, and metrics.json in the work
directory: the results of the last validation. With runner_type =
'mmdet.ResumableRunner' in the config (docs/survival.md), SIGTERM and SIGUSR1
end it with exit status 75, and --resume goes on.
"""

import argparse
import json
import logging
import os
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner, find_latest_checkpoint

from mmdet_longtail.apis.runner import (
    build_runner,
    check_checkpoint,
    check_num_classes,
    check_work_dir,
    failures_explained,
    load_config,
)
from mmdet_longtail.cli.main import run
from mmdet_longtail.cli.options import add_cfg_options
from mmdet_longtail.compat import set_up_launcher
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.utils.fileio import write_atomic


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Train a detector')
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--work-dir',
        help='where logs, checkpoints and metrics.json go; default: the '
        "config's work_dir, else work_dirs/<name of the config>",
    )
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
        help='go on from a checkpoint; without one, or with "auto", from the '
        'latest in the work directory, and from the start if there is none',
    )
    add_cfg_options(parser)
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='job launcher',
    )
    # torch.distributed.launch says it with a hyphen or an underscore.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


class LastMetricsHook(Hook):
    """Keeps the results of the last validation."""

    metrics: dict[str, Any] | None = None

    def after_val_epoch(
        self, runner: Runner, metrics: dict[str, Any] | None = None
    ) -> None:
        """Take the results, keys with the evaluator's prefix."""
        self.metrics = metrics


def configure(args: argparse.Namespace) -> Config:
    """Read the config and apply the command line to it."""
    config = load_config(args.config, args.cfg_options)
    if args.work_dir is not None:
        config.work_dir = args.work_dir
    elif config.get('work_dir') is None:
        config.work_dir = os.path.join('work_dirs', Path(args.config).stem)
    if args.amp:
        if get_device() == 'cpu':
            raise LongTailError('--amp: mixed precision needs a GPU')
        config.optim_wrapper.type = 'AmpOptimWrapper'
        config.optim_wrapper.loss_scale = 'dynamic'
    if args.auto_scale_lr:
        if 'base_batch_size' not in config.get('auto_scale_lr', {}):
            raise LongTailError(
                f'--auto-scale-lr: {args.config} has no '
                'auto_scale_lr.base_batch_size, the batch size that its '
                'learning rate is meant for'
            )
        config.auto_scale_lr.enable = True
    if args.resume == 'auto':
        # With nothing to go on from, load_from still has to be loaded.
        latest = find_latest_checkpoint(config.work_dir)
        if latest is not None:
            config.resume = True
            config.load_from = latest
    elif args.resume is not None:
        config.resume = True
        config.load_from = args.resume
    return config


def check_load_from(config: Config) -> None:
    """Look for the checkpoint before the model is built."""
    path = config.get('load_from')
    if path and '://' not in path and not os.path.isfile(path):
        if 'base_config' in config and not config.get('resume'):
            raise LongTailError(
                f'load_from: no checkpoint {path}; train base_config '
                f'({config.base_config}) first, or set load_from'
            )
        check_checkpoint(path)


def main() -> None:
    """Train, and keep the results of the last validation."""
    args = parse_args()
    config = configure(args)
    check_load_from(config)
    check_work_dir(config.work_dir)
    # A full disk is said once, by what stops, not for each line of the log.
    logging.raiseExceptions = False
    set_up_launcher(config, args.launcher)
    last_metrics = LastMetricsHook()
    with failures_explained(config):
        runner = build_runner(config)
        check_num_classes(runner, runner.train_loop.dataloader.dataset)
        runner.register_hook(last_metrics)
        runner.train()
        metrics = last_metrics.metrics
        # Interrupted in the last validation, and resumed after it.
        if metrics is None and runner.val_loop is not None:
            metrics = runner.val()
    if metrics is not None and is_main_process():
        text = json.dumps(metrics, indent=1) + '\n'
        write_atomic(os.path.join(config.work_dir, 'metrics.json'), text)


if __name__ == '__main__':
    run(main)

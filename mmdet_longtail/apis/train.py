"""Training of a detector from Python."""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet_longtail.apis.runner import (
    last_checkpoint,
    load_run_config,
    running,
)
from mmdet_longtail.engine.hooks.whole_checkpoint_hook import (
    save_whole_files,
)
from mmdet_longtail.engine.runner.launch import exclusive_training
from mmdet_longtail.errors import check
from mmdet_longtail.structures import Checkpoint
from mmdet_longtail.utils.fileio import write_atomic


def train_detector(
    config: str | Path,
    *,
    work_dir: str | Path | None = None,
    cfg_options: Mapping[str, Any] | None = None,
    launcher: str = 'none',
    amp: bool = False,
    auto_scale_lr: bool = False,
    resume: str | None = None,
) -> dict[str, Any] | None:
    """Train a detector, and write metrics.json into the work directory.

    The arguments are the options of ``tools/train.py``, whose help describes
    them.

    Returns:
        dict[str, Any] | None: Metrics of the last validation by name; None
        without a validation.

    Raises:
        LongTailError: If the config, its data or the checkpoint is broken, or
            an option does not fit.
    """
    cfg = load_train_config(
        config, work_dir, cfg_options, auto_scale_lr, resume
    )
    if amp:
        check(get_device() != 'cpu', '--amp: mixed precision needs a GPU')
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.loss_scale = 'dynamic'
    check_load_from(cfg)
    # A full disk ends the training with one error, not one per line of log.
    logging.raiseExceptions = False
    last_metrics = _LastMetricsHook()
    with running(cfg, launcher, 'train') as runner:
        save_whole_files(runner)
        runner.register_hook(last_metrics)
        with exclusive_training(cfg.work_dir):
            runner.train()
        metrics = last_metrics.metrics
        # A run that was interrupted in its last validation and resumed.
        if metrics is None and runner.val_loop is not None:
            metrics = runner.val()
    if metrics is not None and is_main_process():
        text = json.dumps(metrics, indent=1) + '\n'
        write_atomic(os.path.join(cfg.work_dir, 'metrics.json'), text)
    return metrics


def load_train_config(
    config: str | Path,
    work_dir: str | Path | None = None,
    cfg_options: Mapping[str, Any] | None = None,
    auto_scale_lr: bool = False,
    resume: str | None = None,
) -> Config:
    """Load a config, and set what options of ``tools/train.py`` change.

    Raises:
        LongTailError: If the config is broken, or an option does not fit.
    """
    cfg = load_run_config(config, cfg_options, work_dir)
    if auto_scale_lr:
        check(
            'base_batch_size' in cfg.get('auto_scale_lr', {}),
            f'--auto-scale-lr: {config} has no auto_scale_lr.base_batch_size, '
            'the batch size that its learning rate is meant for',
        )
        cfg.auto_scale_lr.enable = True
    if resume == 'auto':
        resume = None
        if os.path.lexists(os.path.join(cfg.work_dir, 'last_checkpoint')):
            resume = str(last_checkpoint(cfg.work_dir))
    if resume is not None and os.path.isdir(resume):
        resume = str(last_checkpoint(resume))
    # Without a checkpoint to resume from, load_from is still loaded.
    if resume is not None:
        cfg.resume = True
        cfg.load_from = resume
    return cfg


class _LastMetricsHook(Hook):
    """Keep the metrics of the last validation."""

    metrics: dict[str, Any] | None = None

    def after_val_epoch(
        self, runner: Runner, metrics: dict[str, Any] | None = None
    ) -> None:
        self.metrics = metrics


def check_load_from(config: Config) -> None:
    """Check that the checkpoint exists before the model is built.

    The work directory of a finished training stands for its last checkpoint.
    """
    path = config.get('load_from')
    if path and os.path.isdir(path):
        check(
            os.path.isfile(os.path.join(path, 'metrics.json')),
            f'load_from: the training in {path} is not finished; finish it, '
            'or name one of its checkpoints',
        )
        config.load_from = path = str(last_checkpoint(path))
    key, advice = 'load_from', 'check the path'
    if config.get('resume'):
        key = 'resume'
    elif 'base_config' in config:
        advice = f'train base_config ({config.base_config}) first, or set it'
    check(
        not path or '://' in path or os.path.isfile(path),
        f'{key}: {path}: no such checkpoint; {advice}',
    )
    if path and '://' not in path:
        Checkpoint.load(path)  # by which nothing in it is executed

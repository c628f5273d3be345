"""Testing a checkpoint by the config and the counts that it carries."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import CheckpointLoader, Runner
from rich.console import Console
from rich.progress import Progress

from mmdet_longtail.command_line import check_checkpoint
from mmdet_longtail.errors import LongTailError


class ProgressHook(Hook):
    """Shows how far a test is.

    Args:
        name (str): What is tested.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.progress = Progress(console=Console(file=sys.stdout))

    def before_test(self, runner: Runner) -> None:
        """Begin."""
        total = len(runner.test_loop.dataloader)
        self.task = self.progress.add_task(f'Testing {self.name}', total=total)
        self.progress.start()

    def after_test_iter(self, *args: Any, **kwargs: Any) -> None:
        """Go on."""
        self.progress.advance(self.task)

    def after_test_epoch(self, *args: Any, **kwargs: Any) -> None:
        """End."""
        self.progress.stop()


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint that carries a config and class statistics.

    Raises:
        LongTailError: If there is none, or it lacks one of them.
    """
    check_checkpoint(str(path))
    checkpoint = CheckpointLoader.load_checkpoint(str(path), 'cpu')
    if not checkpoint.get('meta', {}).get('cfg'):
        raise LongTailError(
            f'{path}: carries no config; take a checkpoint that training wrote'
        )
    if 'class_statistics' not in checkpoint:
        raise LongTailError(
            f'{path}: carries no class statistics; train with '
            "default_hooks=dict(class_statistics=dict(type='"
            "ClassStatisticsHook'))"
        )
    return checkpoint


def keep_only_test(config: Config, path: Path, folder: str) -> None:
    """Leave in a config what tests a checkpoint, quietly.

    Args:
        config (Config): With test_dataloader and test_evaluator; changed in
            place.
        path (Path): The checkpoint.
        folder (str): Where the test may write.
    """
    config.test_cfg = dict(type='TestLoop')
    for key in (
        'train_dataloader',
        'train_cfg',
        'optim_wrapper',
        'val_dataloader',
        'val_cfg',
        'val_evaluator',
    ):
        config[key] = None
    config.pop('param_scheduler', None)
    config.pop('visualizer', None)  # one name in all configs, one work_dir
    config.update(
        load_from=str(path),
        resume=False,
        work_dir=folder,
        experiment_name=Path(folder).name,
        log_level='WARNING',
    )

"""Saves and stops when the run is asked to make way."""

from __future__ import annotations

import signal
from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.dist import all_reduce, barrier, is_distributed
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner

from mmdet_longtail.engine.hooks.whole_checkpoint_hook import (
    WholeCheckpointHook,
)
from mmdet_longtail.engine.runner.worker_signals import keep_workers
from mmdet_longtail.errors import LongTailError

# Windows has only the first.
SIGNALS = [
    getattr(signal, name)
    for name in ('SIGTERM', 'SIGUSR1')
    if hasattr(signal, name)
]
EXIT_STATUS = 75  # EX_TEMPFAIL: try again


@HOOKS.register_module()
class PreemptionHook(Hook):
    """Saves after the next optimizer step on SIGTERM or SIGUSR1, and exits.

    The exit status is 75. In a validation, the run ends at once if nothing
    was trained since the last checkpoint, else after the next step. With
    several ranks it is enough that one of them is asked.

    Raises:
        LongTailError: If ``default_hooks.checkpoint`` is not a
            ``WholeCheckpointHook``.
        SystemExit: With status 75, once the state is saved.
    """

    priority = 'LOWEST'  # after the checkpoint of the schedule

    def __init__(self) -> None:
        self.is_asked = False

    def before_run(self, runner: Runner) -> None:
        """Take over the signals of a training."""
        if not isinstance(runner._train_loop, BaseLoop):
            return
        savers = [
            h for h in runner.hooks if isinstance(h, WholeCheckpointHook)
        ]
        if not savers:
            raise LongTailError(
                'PreemptionHook: default_hooks.checkpoint is not a '
                "WholeCheckpointHook; set its type='WholeCheckpointHook'"
            )
        self.checkpoint = savers[0]
        for number in SIGNALS:
            signal.signal(number, self._ask)

    def before_train(self, runner: Runner) -> None:
        """Keep the data loaders' workers for what is still to do."""
        keep_workers(runner.train_loop.dataloader)
        if runner.val_loop is not None:
            keep_workers(runner.val_loop.dataloader)

    def after_train_iter(
        self, runner: Runner, *args: Any, **kwargs: Any
    ) -> None:
        """Save and exit, if asked."""
        if self.checkpoint.is_optimizer_step(runner) and self._is_any_asked():
            self.checkpoint.save_now(runner)
            # A launcher ends the rank that writes when another one is gone.
            barrier()
            self._exit(runner)

    def after_val_iter(
        self, runner: Runner, *args: Any, **kwargs: Any
    ) -> None:
        """Exit, if asked and if there is nothing to save."""
        # Ranks may have validated unequally far: each goes by itself.
        is_training = isinstance(runner._train_loop, BaseLoop)
        if (
            self.is_asked
            and is_training
            and self.checkpoint.saved_iter == runner.iter
        ):
            self._exit(runner)

    def after_run(self, runner: Runner) -> None:
        """Give the signals back."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)

    def _ask(self, *args: Any) -> None:
        self.is_asked = True

    def _is_any_asked(self) -> bool:
        if not is_distributed():
            return self.is_asked
        asked = torch.tensor(float(self.is_asked))
        all_reduce(asked, 'max')
        return bool(asked)

    def _exit(self, runner: Runner) -> None:
        runner.logger.info(
            f'Asked to stop; {self.checkpoint.last_ckpt} is where --resume '
            'goes on'
        )
        # A launcher sends SIGTERM to what is left when the first rank has
        # ended, and a rank that is about to end would end with another status.
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        raise SystemExit(EXIT_STATUS)

"""Save and exit on a preemption signal."""

import os
import signal
from collections.abc import Callable
from functools import partial
from threading import Thread
from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.dist import all_reduce, barrier
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner
from torch.utils.data import DataLoader

from mmdet_longtail.engine.hooks.whole_checkpoint_hook import (
    WholeCheckpointHook,
)
from mmdet_longtail.errors import check

# Windows has only the first.
SIGNALS = {signal.SIGTERM, getattr(signal, 'SIGUSR1', signal.SIGTERM)}
EXIT_STATUS = 75  # EX_TEMPFAIL: try again


@HOOKS.register_module()
class PreemptionHook(Hook):
    """Save a checkpoint and exit with status 75 on SIGTERM or SIGUSR1.

    A training saves after its next optimizer step. A validation exits at
    once if every step is saved, else after the next step. A run that writes
    cached features, or waits for them, exits at once. With several ranks a
    signal to one of them is enough.

    Raises:
        LongTailError: If ``default_hooks.checkpoint`` is not a
            ``WholeCheckpointHook``.
        SystemExit: With status 75, once the state is saved.
    """

    priority = 'LOWEST'  # after the checkpoint of the schedule

    def __init__(self) -> None:
        self.is_preempted = False
        self.earlier_handlers: dict[int, Any] = {}

    def before_run(self, runner: Runner) -> None:
        """Handle the signals during a training."""
        if not isinstance(runner._train_loop, BaseLoop):
            return
        hooks = [h for h in runner.hooks if isinstance(h, WholeCheckpointHook)]
        check(
            hooks,
            'PreemptionHook: default_hooks.checkpoint is not a '
            "WholeCheckpointHook; set its type='WholeCheckpointHook'",
        )
        self.checkpoint = hooks[0]
        for number in SIGNALS:
            handler = signal.signal(number, self._handle)
            self.earlier_handlers[number] = handler

    def before_train(self, runner: Runner) -> None:
        """Keep the workers of data loaders until the run has saved."""
        for loop in (runner.train_loop, runner.val_loop):
            if loop is not None:
                keep_workers(loop.dataloader)

    def after_train_iter(self, runner: Runner, **kwargs: Any) -> None:
        """Save and exit if a rank is preempted."""
        if not runner.optim_wrapper.should_update():  # no optimizer step
            return
        is_any_preempted = torch.tensor(float(self.is_preempted))
        all_reduce(is_any_preempted, 'max')
        if is_any_preempted:
            self.checkpoint.save_now(runner)
            # A launcher ends the rank that writes when another one is gone.
            barrier()
            self.exit(runner)

    def after_val_iter(self, runner: Runner, **kwargs: Any) -> None:
        """Exit if this rank is preempted and nothing is unsaved."""
        # Ranks can differ in their place in a validation: each exits alone.
        if self.is_preempted and self.checkpoint.saved_iter == runner.iter:
            self.exit(runner)

    def after_run(self, runner: Runner) -> None:
        """Restore the earlier signal handlers."""
        for number, handler in self.earlier_handlers.items():
            signal.signal(number, handler)

    def _handle(self, *args: Any) -> None:
        self.is_preempted = True

    def exit(self, runner: Runner) -> None:
        """Exit with status 75; the state of the run is saved."""
        runner.logger.info(
            'Preempted; --resume continues from '
            f'{self.checkpoint.last_ckpt or "the start"}'
        )
        # A launcher sends SIGTERM to the other ranks when the first one has
        # ended, which would change their exit status.
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        raise SystemExit(EXIT_STATUS)


def exit_if_preempted(runner: Runner) -> None:
    """Exit if this rank is preempted before the first iteration of a run.

    Its other ranks are ended by the launcher, or have the signal, too.
    """
    for hook in runner.hooks:
        if isinstance(hook, PreemptionHook) and hook.is_preempted:
            hook.exit(runner)


def keep_workers(dataloader: DataLoader) -> None:
    """Let only their own run end the workers, which are not started yet.

    A signal to the process group of a run would end its workers first, and
    the run could not take another step.
    """
    init = dataloader.worker_init_fn
    if getattr(init, 'func', None) is not _start_worker:
        dataloader.worker_init_fn = partial(_start_worker, init)


def _start_worker(init: Callable[[int], None] | None, worker_id: int) -> None:
    if hasattr(signal, 'sigwaitinfo'):  # not on macOS and Windows
        # In the worker, because torch installs a handler that ends it.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        run = os.getppid()
        Thread(target=_end_with_run, args=(run,), daemon=True).start()
    if init is not None:
        init(worker_id)


def _end_with_run(run: int) -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != run:
        pass
    os._exit(0)

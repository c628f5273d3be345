"""Workers of data loaders that outlive the signals to their run."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from threading import Thread

from torch.utils.data import DataLoader


def keep_workers(dataloader: DataLoader) -> None:
    """Let its workers end on a SIGTERM from their run only.

    They do not end on SIGUSR1 either. A signal to the process group of a run
    would end the workers first, and the run could not take another step.

    Args:
        dataloader (DataLoader): Without workers yet.
    """
    dataloader.worker_init_fn = partial(_start, dataloader.worker_init_fn)


def _start(init: Callable[[int], None] | None, worker_id: int) -> None:
    if hasattr(signal, 'sigwaitinfo'):  # where signals have a sender
        # In the worker: torch gives it a handler that ends it.
        signal.pthread_sigmask(
            signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1]
        )
        Thread(target=_end_with_run, args=(os.getppid(),), daemon=True).start()
    if init is not None:
        init(worker_id)


def _end_with_run(run: int) -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != run:
        pass
    os._exit(0)

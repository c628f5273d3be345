r"""Start ranks on this machine like torchrun, and return their exit status.

    python tools/torchrun.py --standalone --nproc-per-node 2 \
        tools/train.py CONFIG --launcher pytorch

torchrun exits with status 1 and a stack trace of its own, whatever the status
of its ranks, and SIGUSR1 kills it. This tool exits with the status of the
first rank that failed. It forwards SIGTERM and SIGUSR1 to the ranks, waits for
them, and then exits with 75 like a preempted training.
"""

import os
import signal
import sys

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args
from torch.distributed.run import run as run_ranks

PREEMPTED = 75


def main() -> int:
    """Wait for the ranks and return the exit status."""
    # A step and a checkpoint may take longer than torchrun's 30 s.
    os.environ.setdefault('TORCH_ELASTIC_SHUTDOWN_TIMEOUT', '110')
    args = parse_args(sys.argv[1:])
    if hasattr(args, 'signals_to_handle'):  # not in every torch
        args.signals_to_handle += ',SIGUSR1'
    try:
        run_ranks(args)
    except ChildFailedError as error:
        status = error.get_first_failure()[1].exitcode
        # The status of a shell; a signal is a negative number here.
        return status if status > 0 else 128 - status
    except SignalException as error:
        is_interrupt = error.sigval == signal.SIGINT
        return 128 + error.sigval if is_interrupt else PREEMPTED
    return 0


if __name__ == '__main__':
    sys.exit(main())

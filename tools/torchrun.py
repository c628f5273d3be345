r"""Start ranks on this machine as torchrun does, and end as they end.

    python tools/torchrun.py --standalone --nproc-per-node 2 \
        tools/train.py CONFIG --launcher pytorch

torchrun itself ends with status 1 and a stack trace of its own, whatever its
ranks say, and dies of SIGUSR1. This ends with the status of the first rank
that failed, and hands SIGTERM and SIGUSR1 on to the ranks: when they are gone
it ends with 75, as a training that was asked to stop.
"""

import os
import signal
import sys

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args
from torch.distributed.run import run as run_ranks

TRY_AGAIN = 75


def main() -> int:
    """Wait for the ranks, and say how they ended."""
    # A step and a checkpoint may take longer than the 30 s of torchrun.
    os.environ.setdefault('TORCH_ELASTIC_SHUTDOWN_TIMEOUT', '110')
    args = parse_args(sys.argv[1:])
    if hasattr(args, 'signals_to_handle'):  # not in every torch
        args.signals_to_handle += ',SIGUSR1'
    try:
        run_ranks(args)
    except ChildFailedError as error:
        status = error.get_first_failure()[1].exitcode
        # As a shell says it; a signal that ended a rank is negative here.
        return status if status > 0 else 128 - status
    except SignalException as error:
        is_interrupt = error.sigval == signal.SIGINT
        return 128 + error.sigval if is_interrupt else TRY_AGAIN
    return 0


if __name__ == '__main__':
    sys.exit(main())

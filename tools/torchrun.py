"""Start ranks on this machine, as torchrun does, and end as they end.

    python tools/torchrun.py --standalone --nproc-per-node 2 \
        tools/train.py CONFIG --launcher pytorch

torchrun itself ends with status 1 and a stack trace of its own, whatever its
ranks say; this ends with the status of the first rank that failed, so a batch
script sees the 75 of a training that was asked to stop.
"""

import signal
import sys

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args
from torch.distributed.run import run as run_ranks


def main() -> int:
    """Wait for the ranks, and give the status of the first that failed."""
    args = parse_args(sys.argv[1:])
    if hasattr(signal, 'SIGUSR1'):
        # It may come to the whole process group; the ranks act on it.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        run_ranks(args)
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        # As a shell gives it where a signal, here negative, ended a rank.
        return (
            failure.exitcode % 256
            if failure.exitcode > 0
            else (128 - failure.exitcode)
        )
    except SignalException as error:
        return 128 + error.sigval
    return 0


if __name__ == '__main__':
    sys.exit(main())

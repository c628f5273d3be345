"""Child processes that end with their parent."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # of Linux


def end_with_parent(parent: int, signal_number: int = signal.SIGKILL) -> None:
    """Let a signal end this process when its parent is gone, on Linux.

    Call it in the child, with the process id of the parent. A parent that is
    killed cannot end its children itself.
    """
    if sys.platform == 'linux':
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal_number)
        if os.getppid() != parent:  # before the call
            os.kill(os.getpid(), signal_number)

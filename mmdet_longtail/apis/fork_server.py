"""Run programs in forks of one process that has imported the training.

A training from cached features takes about as long as the imports.
"""

import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from mmdet_longtail.utils.parents import end_with_parent

END = '\0'
# The second one is what torch imports for deterministic algorithms.
IMPORTED = ('mmdet_longtail.apis.train', 'torch._inductor')


class ForkServer:
    """A process that runs Python programs, one after the other.

    Args:
        file_descriptors (Sequence[int]): That the programs inherit.
    """

    def __init__(self, file_descriptors: Sequence[int] = ()) -> None:
        self.file_descriptors = file_descriptors
        self.process: Any = self._start()
        self.returncode: int | None = None

    def _start(self) -> Any:
        end = partial(end_with_parent, os.getpid(), signal.SIGTERM)
        return subprocess.Popen(
            [sys.executable, '-m', __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            pass_fds=self.file_descriptors,
            preexec_fn=end if sys.platform == 'linux' else None,
        )

    def __enter__(self) -> 'ForkServer':
        return self

    def __exit__(self, *args: Any) -> None:
        self.process.terminate()
        self.process.communicate()

    @contextmanager
    def started(self, command: Sequence[str]) -> Iterator['ForkServer']:
        """Start a program; ``stdout`` has its output, then ``returncode``."""
        self.returncode = None
        if self.process.poll() is not None:  # killed, such as out of memory
            self.process = self._start()
        self.process.stdin.write(f'{json.dumps(list(command))}\n')
        self.process.stdin.flush()
        yield self

    @property
    def stdout(self) -> Iterator[str]:
        """The lines of the program."""
        for line in self.process.stdout:
            text, end, status = line.partition(END)
            if text:
                yield text
            if end:
                self.returncode = int(status)
                return
        self.returncode = self.process.wait()


def serve() -> None:
    """Run the commands of stdin: the arguments of python, as JSON."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()  # The collections of the programs skip the imported objects.
    for line in sys.stdin:
        server = os.getpid()
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            end_with_parent(server, signal.SIGTERM)
            sys.argv = json.loads(line)
            # As python does, which runpy leaves out.
            sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
            runpy.run_path(sys.argv[0], run_name='__main__')
            sys.exit(0)
        _, status = os.waitpid(child, 0)
        print(END, os.waitstatus_to_exitcode(status), sep='', flush=True)


if __name__ == '__main__':
    serve()

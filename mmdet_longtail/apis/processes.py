"""Child processes: their progress and logs, the lock of a work directory.

Importable without torch, mmengine and mmdet.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from filelock import lock_descriptor
from rich.console import Console

from mmdet_longtail.apis.fork_server import ForkServer
from mmdet_longtail.errors import LongTailError, check
from mmdet_longtail.utils.fileio import write_atomic
from mmdet_longtail.utils.parents import end_with_parent

if TYPE_CHECKING:
    from mmengine.config import Config

TOOLS = (Path(__file__).parents[1] / '.mim' / 'tools').resolve()

_PROGRESS = re.compile(
    r'((?:Epoch|Iter)\(\w+\)\s+(?:\[\d+\])?\[\s*\d+/\d+\])'
    r'(?:.*?\b(eta: .+?)  )?'
)
_NUM_LAST_LINES = 15

# AP over everything, of a frequency group, or of a bin such as 10_to_100.
SUMMARY = re.compile(r'(.*[/_])?m?AP([rcf]|_[^_]+_(to_)?[^_]+)?')
"""Full names of the metrics that summarise a detector."""


def duration(seconds: float) -> str:
    """Format a time as ``h:mm:ss``."""
    return str(timedelta(seconds=round(seconds)))


@contextmanager
def exclusive(work_dir: Path) -> Iterator[IO]:
    """Lock a work directory, from which the same command can resume.

    Yields:
        IO: The locked file. Children that inherit it by their ``pass_fds``
        hold the lock even when the tool was killed.

    Raises:
        LongTailError: If another run or one of its children holds the lock.
    """
    try:
        work_dir.mkdir(parents=True, exist_ok=True)
        file = open(work_dir / '.lock', 'w')
    except OSError as error:
        raise LongTailError(
            f'{work_dir}: the work directory cannot be written '
            f'({error.strerror}); choose another one with --work-dir'
        ) from None
    with file as lock:
        check(
            lock_descriptor(lock.fileno(), blocking=False),
            f'{work_dir}: another {Path(sys.argv[0]).name}, or a training '
            'that it started, is running here; wait for it or end it',
        )
        try:
            yield lock
        except KeyboardInterrupt:
            print('\nInterrupted; the same command resumes.', flush=True)
            raise


@contextmanager
def started(command: Sequence[str], **kwargs: Any) -> Iterator:
    """Run a Python program that ends with this process at the latest.

    Args:
        command (Sequence[str]): Arguments of ``python``.
        **kwargs: Arguments of ``subprocess.Popen``, which is yielded.
    """
    if sys.platform == 'linux':
        kwargs['preexec_fn'] = partial(
            end_with_parent, os.getpid(), signal.SIGTERM
        )
    with subprocess.Popen([sys.executable, *command], **kwargs) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()


def train_command(
    config: str | Path, folder: Path, *options: str
) -> list[str]:
    """Return the command that trains or resumes, as arguments of python."""
    command = [str(TOOLS / 'train.py'), str(config), '--work-dir', str(folder)]
    return [*command, '--resume', 'auto', *options]


def progress(line: str) -> str:
    """Return the progress in a line of mmengine's log, or ''.

    It is such as ``Epoch(train) [3][150/200] eta: 0:12:33``.
    """
    match = _PROGRESS.search(line)
    return ' '.join(' '.join(match.groups('')).split()) if match else ''


def run_with_progress(
    command: Sequence[str],
    what: str,
    log_path: Path,
    console: Console,
    lock: IO | None = None,
    server: ForkServer | None = None,
) -> float:
    """Run a training or a test, and return its duration in seconds.

    Args:
        command (Sequence[str]): Arguments of ``python``.
        what (str): Name of the process in messages.
        log_path (Path): File to append the output to.
        console (Console): Shows the progress, a line per minute if it is no
            terminal.
        lock (IO, optional): Lock of `exclusive` for the process to inherit.
        server (ForkServer, optional): To fork the process from.

    Raises:
        LongTailError: If the process fails, with its own error message.
    """
    start = shown = time.monotonic()
    log_path.parent.mkdir(parents=True, exist_ok=True)
    last_lines: deque[str] = deque(maxlen=_NUM_LAST_LINES)
    error = ''
    if server is not None:
        starting: Any = server.started(command)
    else:
        starting = started(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            pass_fds=[lock.fileno()] if lock else (),
        )
    with (
        log_path.open('a', buffering=1) as log,
        console.status('starting') as status,
        starting as process,
    ):
        for line in process.stdout:
            log.write(line)
            last_lines.append(line)
            if line.startswith('error: '):
                error = line.removeprefix('error: ').strip()
            if text := progress(line):
                status.update(text)
                now = time.monotonic()
                # Into a file, which may be a night's, a line per minute.
                if not console.is_terminal and now - shown >= 60:
                    console.print(f'      {text}')
                    shown = now
    if process.returncode != 0:
        if not error:
            print(*last_lines, sep='', end='', file=sys.stderr)
            error = f'exit status {process.returncode}'
        raise LongTailError(
            f'{what} failed: {error} (the whole output is in '
            f'{log_path.absolute()})'
        )
    return time.monotonic() - start


def keep_config(path: Path, config: 'Config', folder: Path) -> None:
    """Write the config of the run in a folder, the same when it is resumed.

    Raises:
        LongTailError: If the run was started with another config, apart from
            ``load_from``: the same checkpoint may have another path.
    """
    from mmdet_longtail.apis.runner import load_config

    if path.exists() and folder.exists():
        same_path = dict(load_from=None)
        kept = load_config(path).to_dict()
        check(
            kept | same_path == config.to_dict() | same_path,
            f'{folder} was started with another config ({path}): delete the '
            'directory to train it again, or use another --work-dir',
        )
    text = config.pretty_text
    if not path.exists() or path.read_text() != text:
        write_atomic(path, text)

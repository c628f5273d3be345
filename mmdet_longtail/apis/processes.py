"""Running the tools as child processes, and going on where they stopped."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from mmdet_longtail.apis.runner import load_config
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.utils.fileio import write_whole

if TYPE_CHECKING:
    from mmengine.config import Config

# Asks Linux for a SIGTERM when the parent is gone, and becomes the command.
_END_WITH_PARENT = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
try:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
except (AttributeError, OSError):
    pass
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
_ITERATION = re.compile(
    r'(?:Epoch|Iter)\((train|val|test)\)\s+(?:\[(\d+)\])?'
    r'\[\s*(\d+)/(\d+)\](?:.*eta: (.+?)  )?'
)
_NUM_LAST_LINES = 15

# AP over everything, of a frequency group, or of a bin such as 10_to_100.
SUMMARY = re.compile(r'(.*[/_])?m?AP([rcf]|_[^_]+_(to_)?[^_]+)?')
"""Full names of the metrics that sum a detector up."""


def duration(seconds: float) -> str:
    """Give a time as minutes and seconds.

    Args:
        seconds (float): How long it took.
    """
    minutes, rest = divmod(round(seconds), 60)
    return f'{minutes}:{rest:02} min'


@contextmanager
def exclusive(work_dir: Path) -> Iterator[IO]:
    """Keep a second run of a tool out of a work directory.

    Children that get the lock as one of their ``pass_fds`` hold it, even when
    the tool was killed.

    Args:
        work_dir (Path): Made if missing.

    Yields:
        IO: The lock.

    Raises:
        LongTailError: If another run or one of its children is at work.
    """
    work_dir.mkdir(parents=True, exist_ok=True)
    with open(work_dir / '.lock', 'w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LongTailError(
                f'{work_dir}: another {Path(sys.argv[0]).name}, or a training '
                'that it started, is still at work here; wait for it or end it'
            ) from None
        yield lock


@contextmanager
def started(command: Sequence[str], **kwargs: Any) -> Iterator:
    """Run a Python program that does not outlive this one.

    Args:
        command (Sequence[str]): What follows ``python``.
        **kwargs: Of ``subprocess.Popen``.

    Yields:
        subprocess.Popen: The process.
    """
    arguments = ['-c', _END_WITH_PARENT, str(os.getpid()), *command]
    with subprocess.Popen([sys.executable, *arguments], **kwargs) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()


def run_with_progress(
    command: Sequence[str],
    what: str,
    log_path: Path,
    console: Console,
    num_epochs: int = 1,
    **kwargs: Any,
) -> None:
    """Run a training or a test, and show how far it is.

    Args:
        command (Sequence[str]): What follows ``python``.
        what (str): What it is, for messages.
        log_path (Path): File that all it says is added to.
        console (Console): Where progress is shown, if it is a terminal.
        num_epochs (int): Of the training; 1 where iterations are counted.
        **kwargs: Of ``subprocess.Popen``.

    Raises:
        LongTailError: If it fails, with its last words.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)
    progress = Progress(
        TextColumn('      {task.description}'),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    lines: list[str] = []
    mistake = ''
    with (
        log_path.open('a') as log,
        progress,
        started(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **kwargs,
        ) as process,
    ):
        task = progress.add_task('starting', total=1)
        for line in process.stdout:
            log.write(line)
            log.flush()
            lines = [*lines[1 - _NUM_LAST_LINES :], line]
            if line.startswith('error: '):
                mistake = line.removeprefix('error: ').strip()
            match = _ITERATION.search(line)
            if match is None:
                continue
            split, epoch, iteration, last, eta = match.groups()
            done = int(iteration) / int(last)
            if split != 'train':
                text = f'evaluating, {100 * done:.0f} %'
                progress.update(task, description=text)
                continue
            left = f'{eta} left' if eta else ''
            if epoch is not None:
                done = (int(epoch) - 1 + done) / num_epochs
                left = f'epoch {epoch} of {num_epochs}, {left}'
            progress.update(task, completed=done, description=left)
    if process.returncode != 0:
        if not mistake:
            print(*lines, sep='', file=sys.stderr)
            mistake = f'exit status {process.returncode}'
        raise LongTailError(
            f'{what} failed: {mistake} (all that it said is in '
            f'{log_path.absolute()})'
        )


def num_epochs(config: Config) -> int:
    """Give the epochs of a training, 1 where iterations are counted.

    Args:
        config (Config): Its train_cfg says.
    """
    return (config.get('train_cfg') or {}).get('max_epochs') or 1


def keep_config(path: Path, config: Config, folder: Path) -> Path:
    """Write the config of a run, which is the same when the run goes on.

    Args:
        path (Path): File to write.
        config (Config): The config.
        folder (Path): What the run writes.

    Returns:
        Path: The file.

    Raises:
        LongTailError: If the run was begun with another one.
    """
    if path.exists():
        kept = load_config(path)
        wanted = {'load_from': None} | config.to_dict()
        if {'load_from': None} | kept.to_dict() == wanted:
            return path
        # Where a checkpoint lies does not tell what it holds.
        kept.load_from = wanted['load_from']
        if kept.to_dict() != wanted and folder.exists():
            raise LongTailError(
                f'{folder} was begun with another config ({path}): delete '
                'the directory to train it again, or take another --work-dir'
            )
    write_whole(path, config.pretty_text)
    return path

"""Printing of tables and progress, and silence for other libraries."""

import io
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager, redirect_stdout
from typing import TypeVar

from rich.console import Console
from rich.progress import track

T = TypeVar('T')
SECONDS_PER_LINE = 30.0


@contextmanager
def quiet() -> Iterator[None]:
    """Discard what is printed, such as mmengine's and pycocotools' notes."""
    with redirect_stdout(io.StringIO()):
        yield


def table_console() -> Console:
    """Return a console on stdout that does not wrap tables in a file."""
    return Console(width=None if sys.stdout.isatty() else 200)


def progress_console() -> Console | None:
    """Return a console on stderr, or None if stderr is no terminal."""
    console = Console(stderr=True)
    return console if console.is_terminal else None


def show_progress(items: Iterable[T], description: str) -> Iterator[T]:
    """Yield items, with their progress on stdout.

    A terminal gets a bar. A file gets a line at the start, and then at most
    one each half minute.
    """
    console = Console(file=sys.stdout)
    if console.is_terminal:
        yield from track(items, description, console=console)
        return
    total = f' of {len(items):,}' if isinstance(items, Sized) else ''
    out, last = sys.stdout, time.monotonic()
    print(f'{description} ...', file=out, flush=True)
    for number, item in enumerate(items, 1):
        yield item
        if time.monotonic() - last >= SECONDS_PER_LINE:
            last = time.monotonic()
            print(f'{description}: {number:,}{total}', file=out, flush=True)

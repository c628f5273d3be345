"""Printing of tables and progress, and silence for other libraries."""

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from rich.console import Console


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

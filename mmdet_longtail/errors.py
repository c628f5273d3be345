"""The error that the package shows to its users, and its one-line text."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class LongTailError(ValueError):
    """Something the user wrote or passed cannot work.

    The message is one line that names the file, field, class or config key,
    what was expected, what was found, and the way out. Tools print that line
    and exit with status 1.
    """


def check(holds: Any, message: str) -> None:
    """Raise a LongTailError with the message unless a condition holds."""
    if not holds:
        raise LongTailError(message)


@contextmanager
def errors_of(source: object) -> Iterator[None]:
    """Prefix each LongTailError raised inside with its source."""
    try:
        yield
    except LongTailError as error:
        raise LongTailError(f'{source}: {error}') from None


def one_line(error: object) -> str:
    """Return the text of an error without line breaks."""
    return ' '.join(str(error).split())

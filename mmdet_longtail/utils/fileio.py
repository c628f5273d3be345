"""Read and write files, with errors of one line."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from mmdet_longtail.errors import LongTailError


def read_text(path: str | Path) -> str:
    """Read a local text file in UTF-8.

    Raises:
        LongTailError: If the file is missing, or no such text.
    """
    try:
        return Path(path).read_text(encoding='utf-8-sig')
    except FileNotFoundError:
        raise LongTailError(f'{path}: no such file; check the path') from None
    except (OSError, UnicodeDecodeError) as error:
        raise LongTailError(
            f'{path}: cannot be read ({getattr(error, "strerror", error)})'
        ) from None


def read_json(path: str | Path) -> Any:
    """Read a local JSON file.

    Raises:
        LongTailError: If the file is missing, or no JSON.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except ValueError as error:
        raise LongTailError(
            f'{path}: not valid JSON ({error}); is the file complete?'
        ) from None


def write_atomic(path: str | Path, content: str | bytes) -> None:
    """Write a file atomically and durably.

    The content is written and fsynced under another name, then renamed. Text
    is written as UTF-8. A missing folder is made.

    Raises:
        LongTailError: If the file cannot be written.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    unfinished = Path(f'{path}.{os.getpid()}.tmp')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(unfinished, 'wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise LongTailError(
            f'{path}: cannot be written ({error.strerror})'
        ) from None
    finally:
        if unfinished.is_file():
            unfinished.unlink()


def _sync_folder(folder: Path) -> None:
    """Make a rename in a folder durable."""
    with contextlib.suppress(OSError):  # some file systems cannot
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

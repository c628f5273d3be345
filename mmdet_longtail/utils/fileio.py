"""Read and write files, with errors of one line."""

import contextlib
import gc
import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmdet_longtail.errors import LongTailError

# First bytes of files that are given in place of text.
MAGIC = {
    b'\x1f\x8b': 'compressed by gzip; decompress it',
    b'PK\x03\x04': 'a zip archive; unpack it',
    b'\x80': 'a pickle, which can run code when it is read',
    b'\xff\xfe': 'UTF-16 text; convert it to UTF-8',
    b'\xfe\xff': 'UTF-16 text; convert it to UTF-8',
}
SURROGATE = re.compile(r'\\u[dD][89a-fA-F]')
HOST = re.sub(r'[^\w-]', '-', socket.gethostname())[:40]


def read_text(path: str | Path) -> str:
    """Read a local text file in UTF-8.

    Raises:
        LongTailError: If the file is missing, or no such text.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise LongTailError(f'{path}: no such file; check the path') from None
    except OSError as error:
        raise LongTailError(
            f'{path}: cannot be read ({error.strerror})'
        ) from None
    try:
        return data.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        found = next(
            (text for m, text in MAGIC.items() if data[: len(m)] == m), error
        )
        raise LongTailError(
            f'{path}: cannot be read, expected UTF-8 text, found {found}'
        ) from None


def read_json(path: str | Path) -> Any:
    """Read a local JSON file.

    Raises:
        LongTailError: If the file is missing, or no JSON.
    """
    text = read_text(path)
    try:
        with _garbage_collection_paused():
            content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LongTailError(
            f'{path}: not valid JSON ({error}); {_json_fault(text)}'
        ) from None
    if SURROGATE.search(text):  # A pair of them is a character, one is not.
        try:
            json.dumps(content, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            near = error.object[max(0, error.start - 20) : error.start]
            raise LongTailError(
                f'{path}: has text that is not Unicode, a lone surrogate '
                f'{error.object[error.start]!a} after {near!r}; write '
                'the character whole, or remove it'
            ) from None
    return content


@contextlib.contextmanager
def _garbage_collection_paused() -> Iterator[None]:
    """Pause the search for cycles, a third of the time to parse LVIS."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _json_fault(text: str) -> str:
    """Return what may be wrong with a text that is not JSON."""
    if not text.strip('\0 \r\n\t'):
        return 'the file is empty'
    if '\0' in text[:4]:
        return 'is it UTF-16 text? convert it to UTF-8'
    if text[-1] == '\0':
        return 'the file ends in NUL bytes; copy it again'
    with contextlib.suppress(ValueError, RecursionError):
        json.loads(text.lstrip().split('\n', 1)[0])
        return 'these are JSON lines; write one JSON object'
    return 'is the file complete?'


def check_writable(path: str | Path) -> None:
    """Check that a file can be written later, in a folder that may be made.

    Raises:
        LongTailError: If the path is a folder, or its folder no such one.
    """
    path = Path(path)
    folder = next(p for p in path.absolute().parents if p.exists())
    reason = ''
    if path.is_dir():
        reason = 'it is a folder'
    elif not folder.is_dir():
        reason = f'{folder} is not a folder'
    elif not os.access(folder, os.W_OK):
        reason = f'{folder} is not writable'
    if reason:
        raise LongTailError(f'{path}: cannot be written ({reason})')


def read_record(path: str | Path, *keys: str) -> dict[str, Any]:
    """Read a JSON file that a tool has written, which has these keys.

    Raises:
        LongTailError: If the file is missing, or is no such record.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not set(keys) <= content.keys():
        expected = f'an object with {", ".join(keys)}' if keys else 'an object'
        raise LongTailError(
            f'{path}: not a record of this command, expected {expected}; '
            'remove the file to repeat its step'
        )
    return content


def write_atomic(path: str | Path, content: str | bytes) -> None:
    """Write a file atomically and durably.

    The content is written and fsynced under another name, then renamed. Text
    is written as UTF-8. A missing folder is made.

    Raises:
        LongTailError: If the file cannot be written.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    unfinished = Path(f'{path}.{HOST}.{os.getpid()}.tmp')
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


def remove_unfinished(folder: str | Path) -> None:
    """Remove what processes that are gone, of this host, have not finished.

    The unfinished files of a process that runs stay.
    """
    for path in Path(folder).glob(f'*.{HOST}.*.tmp'):
        number = path.name.split('.')[-2]
        if number.isdecimal() and not _is_running_elsewhere(int(number)):
            path.unlink(missing_ok=True)


def _is_running_elsewhere(process: int) -> bool:
    """Check that there is a process of an id which is not this one's."""
    if process == os.getpid():  # of an earlier container
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def _sync_folder(folder: Path) -> None:
    """Make a rename in a folder durable."""
    with contextlib.suppress(OSError):  # some file systems cannot
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

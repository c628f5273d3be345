"""The lock of a training on its work directory."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.utils.fileio import HOST

LOCK = '.train.lock'
_held: set[tuple[int, Path]] = set()


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Lock a folder for this process; again within itself changes nothing.

    The lock ends with the process. Forked children do not hold it: the
    workers of a killed training outlive it for some seconds. A file system
    without locks is not locked.

    Raises:
        LongTailError: If another process holds the lock.
    """
    path = Path(folder, LOCK).resolve()
    key = os.getpid(), path
    if key in _held:
        yield
        return
    with open(path, 'a+') as file:
        try:
            import fcntl

            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            raise LongTailError(
                f'{folder}: another training is running here '
                f'({file.read() or "not known where"}); wait for it, end it, '
                'or give another --work-dir'
            ) from None
        except (ImportError, OSError):  # Windows, some network file systems
            pass
        with suppress(OSError):  # a full disk
            file.truncate(0)
            file.write(f'process {os.getpid()} on {HOST}')
            file.flush()
        _held.add(key)
        try:
            yield
        finally:
            _held.discard(key)

"""Arrays of different lengths in one memory-mapped file."""

import os
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

ENDS = '.ends.npy'


class RaggedWriter:
    """Append arrays to a .npy file; only one array is in memory.

    The arrays of a field have one dtype and one shape of their rows. Two
    files are written per field: the rows of all arrays, and where each ends.

    Args:
        prefix (Path): Of the files, which a field's name completes.
    """

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        self.files: dict[str, Any] = {}
        self.ends: dict[str, list[int]] = {}
        self.rows: dict[str, np.ndarray] = {}  # (0, ...), dtype and shape

    def add(self, field: str, array: np.ndarray) -> None:
        """Append an array to a field."""
        if field not in self.files:
            self.files[field] = open(f'{self.prefix}.{field}.npy', 'wb')
            self.ends[field] = []
            self.rows[field] = array[:0]
            self._write_header(field, 0)
        assert array[:0].shape == self.rows[field].shape
        self.files[field].write(
            np.ascontiguousarray(array, self.rows[field].dtype).tobytes()
        )
        ends = self.ends[field]
        ends.append((ends[-1] if ends else 0) + len(array))

    @property
    def num_bytes(self) -> int:
        """Number of bytes written so far."""
        return sum(file.tell() for file in self.files.values())

    def __enter__(self) -> 'RaggedWriter':
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for field, file in self.files.items():
            with file:
                if error is None:
                    ends = np.array(self.ends[field], np.int64)
                    with open(f'{self.prefix}.{field}{ENDS}', 'wb') as other:
                        np.save(other, ends)
                        other.flush()
                        os.fsync(other.fileno())
                    file.seek(0)
                    self._write_header(field, int(ends[-1]))
                    file.flush()
                    os.fsync(file.fileno())

    def _write_header(self, field: str, num_rows: int) -> None:
        rows = self.rows[field]
        # numpy pads the header so that the number of rows can grow.
        np.lib.format.write_array_header_1_0(
            self.files[field],
            dict(
                descr=np.lib.format.dtype_to_descr(rows.dtype),
                fortran_order=False,
                shape=(num_rows, *rows.shape[1:]),
            ),
        )


class RaggedArray:
    """Arrays of a field that a `RaggedWriter` wrote, memory-mapped.

    Args:
        prefix (Path): Of the files.
        field (str): Name of the field.
    """

    def __init__(self, prefix: Path, field: str) -> None:
        rows = np.load(f'{prefix}.{field}.npy', mmap_mode='r')
        self.rows = np.asarray(rows)  # indexed faster than np.memmap
        ends = np.load(f'{prefix}.{field}{ENDS}')
        self.bounds = [0, *ends.tolist()]

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        return self.rows[self.bounds[index] : self.bounds[index + 1]]

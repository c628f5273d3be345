"""Files that appear whole or not at all, in the words of mmengine."""

from __future__ import annotations

from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

from mmdet_longtail.utils.fileio import write_whole


@register_backend('whole_file')
class WholeFileBackend(LocalBackend):
    """Writes on the local disk, beside the file, and renames.

    Used by ``backend_args=dict(backend='whole_file')``.

    Raises:
        LongTailError: If a file cannot be written, such as on a full disk.
            What had its name before stays.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes."""
        write_whole(filepath, obj)

    def put_text(
        self, obj: str, filepath: str | Path, encoding: str = 'utf-8'
    ) -> None:
        """Write text."""
        write_whole(filepath, obj.encode(encoding))

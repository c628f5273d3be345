"""Run-length encoding of dense masks."""

from typing import Any

import numpy as np
from pycocotools import mask as mask_utils

# Few enough to stay in the cache of the processor.
MASKS_AT_ONCE = 16


def encode_masks(masks: np.ndarray) -> list[dict[str, Any]]:
    """Encode masks exactly as ``pycocotools.mask.encode`` does.

    Runs go down the columns, and from the bottom of a column to the top of
    the next. A run starts where a pixel differs from the pixel before.

    Args:
        masks (np.ndarray): (n, height, width), zeros and ones of any type.

    Returns:
        list[dict]: Compressed encodings: size and counts.

    Examples:
        >>> [mask] = encode_masks(np.eye(2)[None])
        >>> mask['size'], int(mask_utils.area(mask))
        ([2, 2], 2)
    """
    n, height, width = masks.shape
    if not n:
        return []
    size, row_bytes = height * width, -(-width // 8)
    before = np.zeros_like(masks[:, -1:], bool)  # Pixels before the top row.
    before[:, :, 1:] = masks[:, -1:, :-1]
    before = np.packbits(before, axis=2)
    places, values = [], []
    for start in range(0, n, MASKS_AT_ONCE):
        some = slice(start, start + MASKS_AT_ONCE)
        place, value = _changed_bytes(masks[some], before[some])
        places.append(start * height * row_bytes + place)
        values.append(value)
    row, column = np.divmod(np.concatenate(places), row_bytes)
    number, y = np.divmod(row, height)
    # Each mask has its own range of positions, from 0 to its size.
    small = n * (size + 1) < 2**31
    first = np.arange(n, dtype=np.int32 if small else np.int64) * (size + 1)
    top = first[number] + (8 * column * height + y).astype(first.dtype)
    bits = np.unpackbits(np.concatenate(values)).view(bool)
    bit = np.flatnonzero(bits).astype(first.dtype)
    starts = top[bit >> 3] + (bit & 7) * height
    edges = np.sort(np.concatenate([first, starts, first + size]))
    ends = np.searchsorted(edges, first + size, side='right').tolist()
    runs = np.diff(edges)
    encodings = [
        {'size': [height, width], 'counts': runs[start : end - 1]}
        for start, end in zip([0, *ends], ends)
    ]
    return mask_utils.frPyObjects(encodings, height, width)


def _changed_bytes(
    masks: np.ndarray, before: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Compare each row with the row before, eight pixels per byte.

    Args:
        masks (np.ndarray): (n, height, width).
        before (np.ndarray): (n, 1, ceil(width / 8)), packed.

    Returns:
        tuple[np.ndarray, np.ndarray]: Positions and bits of bytes that have
        a change, among n x height x ceil(width / 8).
    """
    masks = masks.astype(bool, copy=False)
    shape = (*masks.shape[:2], before.shape[2])
    # Whole bytes per row need no loop over rows.
    packed = np.packbits(masks, 2 if masks.shape[2] % 8 else None)
    packed = packed.reshape(shape)
    words = np.empty(-(-packed.size // 8), np.uint64)
    words[-1:] = 0  # Its last bytes may be beyond the masks.
    changes = words.view(np.uint8)[: packed.size].reshape(shape)
    np.bitwise_xor(packed[:, :1], before, out=changes[:, :1])
    np.bitwise_xor(packed[:, 1:], packed[:, :-1], out=changes[:, 1:])
    # Few words have a change.
    changed = np.flatnonzero(words != 0)
    places = (8 * changed[:, None] + np.arange(8)).ravel()
    values = words[changed].view(np.uint8)
    is_changed = values != 0
    return places[is_changed], values[is_changed]

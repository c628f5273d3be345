"""Run-length encoding of dense masks."""

from typing import Any

import numpy as np
from pycocotools import mask as mask_utils

# Few enough to stay in the cache of the processor.
MASKS_AT_ONCE = 16


def encode_masks(masks: np.ndarray) -> list[dict[str, Any]]:
    """Encode masks exactly as ``pycocotools.mask.encode`` does.

    Args:
        masks (np.ndarray): (n, height, width), zeros and ones of any type.

    Returns:
        list[dict]: Compressed encodings: size and counts.
    """
    return [
        encoding
        for start in range(0, len(masks), MASKS_AT_ONCE)
        for encoding in _encode(masks[start : start + MASKS_AT_ONCE])
    ]


def _encode(masks: np.ndarray) -> list[dict[str, Any]]:
    """Encode masks (n, height, width), at least one.

    Runs go down the columns, and from the bottom of a column to the top of
    the next. A run starts where a pixel differs from the pixel before. Bits
    are compared, eight pixels of a row per byte.
    """
    masks = masks.astype(bool, copy=False)
    n, height, width = masks.shape
    packed = np.packbits(masks, axis=2)  # (n, height, ceil(width / 8))
    words = np.empty(-(-packed.size // 8), np.uint64)
    words[-1:] = 0  # Its last bytes may be beyond the masks.
    changes = words.view(np.uint8)[: packed.size].reshape(packed.shape)
    np.bitwise_xor(packed[:, 1:], packed[:, :-1], out=changes[:, 1:])
    before = np.zeros_like(masks[:, -1:])
    before[:, :, 1:] = masks[:, -1:, :-1]
    packed_before = np.packbits(before, axis=2)
    np.bitwise_xor(packed[:, :1], packed_before, out=changes[:, :1])
    # Few words have a change.
    changed = np.flatnonzero(words != 0)
    bits = np.unpackbits(words[changed].view(np.uint8)).view(bool)
    word, bit = np.divmod(np.flatnonzero(bits), 64)
    row, x = np.divmod(64 * changed[word] + bit, 8 * packed.shape[2])
    number, y = np.divmod(row, height)
    # Each mask has its own range of positions, from 0 to its size.
    size = height * width
    first = np.arange(n) * (size + 1)
    starts = first[number] + x * height + y
    edges = np.sort(np.concatenate([first, starts, first + size]))
    ends = np.searchsorted(edges, first + size, side='right').tolist()
    runs = np.diff(edges)
    encodings = [
        {'size': [height, width], 'counts': runs[start : end - 1]}
        for start, end in zip([0, *ends], ends)
    ]
    return mask_utils.frPyObjects(encodings, height, width)

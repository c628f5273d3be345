"""Bins of classes by a count: half-open, the lower edge inclusive.

Edges (10, 100) make the bins [0, 10) [10, 100) [100, inf).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from mmdet_longtail.errors import LongTailError


def check_bin_edges(bin_edges: Any, owner: str = '') -> None:
    """Refuse edges that make no bins.

    Args:
        bin_edges (Any): What a config or a caller gave.
        owner (str): The class that they belong to, for the message.

    Raises:
        LongTailError: If they are not at least one finite number, each
            positive and larger than the one before.
    """
    edges = np.array(bin_edges)
    is_valid = (
        edges.ndim == 1
        and edges.size > 0
        and np.issubdtype(edges.dtype, np.number)
        and np.isfinite(edges).all()
        and (np.diff([0, *edges]) > 0).all()
    )
    if not is_valid:
        raise LongTailError(
            f'{owner}{owner and ": "}bin_edges is {bin_edges!r}, expected at '
            'least one number, each positive and larger than the one before, '
            'such as (10, 100, 1000)'
        )


def bin_index_of(counts: np.ndarray, bin_edges: Sequence[float]) -> np.ndarray:
    """Say which bin each count is in.

    Args:
        counts (np.ndarray): Counts (C,).
        bin_edges (Sequence[float]): G - 1 edges, positive and rising.

    Returns:
        np.ndarray: (C,) int64 in [0, G), 0 for the smallest counts.

    Raises:
        LongTailError: See `check_bin_edges`.
    """
    check_bin_edges(bin_edges)
    return np.searchsorted(np.array(bin_edges), counts, side='right')


def bin_names(bin_edges: Sequence[float]) -> list[str]:
    """Readable names of the G bins: below_10, 10_to_100, from_100."""
    # Six digits, the default, would give bins of millions the same name.
    edges = [f'{edge:.12g}' for edge in bin_edges]
    inner = [f'{low}_to_{high}' for low, high in pairwise(edges)]
    return [f'below_{edges[0]}', *inner, f'from_{edges[-1]}']

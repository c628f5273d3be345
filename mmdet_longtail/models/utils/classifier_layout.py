"""Which columns a classifier has under a loss, and how one becomes another.

A column is a row of the weight of ``fc_cls`` with its bias. A layout is a
sequence of parts:

- softmax: C classes, background
- sigmoids: C classes, to whose logits a loss may add a constant
- balanced group softmax: C classes, G others, foreground, background; its
  variants lack one of them

Between two layouts stands a softmax. To it, with the columns z of a class, o
of ``others`` in its bin, f of foreground and b of background:

- class z + f - o against background b. It is exact that P(class) / P(b) =
  e^(f - b) P(class | bin), and P(class | bin) is about e^(z - o) as long as
  ``others`` is the most probable in the bin, as it is for most RoIs. Where
  there is no ``others`` it is b, no foreground b, and no background the mean
  of ``others``: a softmax stays as it is.
- sigmoids are against background 0, and get the constant of their loss.

From it:

- to sigmoids: class less background, less the constant of the loss. A
  sigmoid is a softmax of two, so this is exact for each class by itself, and
  sigmoids to softmax and back are exact.
- to bins: ``others`` and foreground start as background. Softmax to bins and
  back is exact.

Parts that both layouts have, with the same bins, are copied instead. Between
a softmax and bins no linear layer can predict the same: bins multiply
probabilities, each over its own sum of exponentials, and the logarithm of
such a sum is not linear.

Shapes: C classes, G bins, D columns, F input features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmdet.models.losses import CrossEntropyLoss, SeesawLoss
from torch import Tensor

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.losses.base import (
    ColumnBlock,
    LongTailLoss,
    block_sizes,
)

SOFTMAX: tuple[ColumnBlock, ...] = ('classes', 'background')
SIGMOIDS: tuple[ColumnBlock, ...] = ('sigmoids',)
GROUPS: tuple[ColumnBlock, ...] = (
    'classes',
    'others',
    'foreground',
    'background',
)
GROUPS_WITHOUT_OTHERS: tuple[ColumnBlock, ...] = (
    'classes',
    'foreground',
    'background',
)


@dataclass(frozen=True)
class Layout:
    """The columns of a classifier.

    Args:
        name (str): What they are called in messages.
        parts (tuple[str, ...]): In order; 'sigmoids' are classes without
            background.
        prior_logit (float): Constant that the loss adds to sigmoids.
        bin_index (tuple[int, ...], optional): Bin of each class; None
            without bins, or if it is not known.
        num_bins (int): G.
    """

    name: str
    parts: tuple[ColumnBlock, ...]
    prior_logit: float = 0.0
    bin_index: tuple[int, ...] | None = None
    num_bins: int = 0

    def sizes(self, num_classes: int) -> list[int]:
        """Return the number of columns of each part."""
        return [*block_sizes(self.parts, num_classes, self.num_bins).values()]

    def common_parts(self, other: Layout) -> list[str]:
        """Parts that have the same meaning in another layout."""
        if (self.prior_logit, self.bin_index) != (
            other.prior_logit,
            other.bin_index,
        ):
            return []
        return [part for part in other.parts if part in self.parts]


def layout_of(
    loss: Any, bin_index: np.ndarray | None, num_classes: int
) -> Layout:
    """The layout of a loss that was built.

    Args:
        loss (nn.Module): The loss_cls of a RoI head.
        bin_index (np.ndarray, optional): Bin of each class (C,), if known.
        num_classes (int): C.

    Raises:
        LongTailError: If its columns are not known.
    """
    name = type(loss).__name__
    if isinstance(loss, LongTailLoss):
        return Layout(
            name,
            loss.column_blocks,
            loss.prior_logit,
            None if bin_index is None else tuple(bin_index.tolist()),
            loss.num_bins,
        )
    if isinstance(loss, SeesawLoss):
        return seesaw_layout(name, num_classes)
    if isinstance(loss, CrossEntropyLoss) and not loss.use_sigmoid:
        return Layout(name, SOFTMAX)
    raise LongTailError(
        f'loss_cls={name}: its columns are not known; expected '
        'CrossEntropyLoss with use_sigmoid=False, SeesawLoss or a loss of '
        'mmdet_longtail for RoI heads'
    )


def seesaw_layout(name: str, num_classes: int) -> Layout:
    """Seesaw is a group softmax with all classes in one bin.

    Args:
        name (str): What it is called in messages.
        num_classes (int): C.
    """
    one_bin = (0,) * num_classes
    return Layout(name, GROUPS_WITHOUT_OTHERS, 0.0, one_bin, 1)


def convert_columns(
    columns: Tensor, num_classes: int, source: Layout, target: Layout
) -> Tensor:
    """Lay the columns of a classifier out for another loss.

    Args:
        columns (Tensor): Weight and bias in one, (D, F + 1).
        num_classes (int): C.
        source (Layout): What they are, with its bins if it has ``others``.
        target (Layout): What they become.

    Returns:
        Tensor: The columns of the target (D', F + 1).
    """
    blocks = columns.double().split(source.sizes(num_classes))
    found = dict(zip(source.parts, blocks, strict=True))
    classes, background = to_softmax(found, source)
    sigmoids = classes - background
    sigmoids[:, -1] -= target.prior_logit
    parts = {
        'classes': classes,
        'sigmoids': sigmoids,
        'others': background.expand(target.num_bins, -1),
        'foreground': background,
        'background': background,
    }
    for part in source.common_parts(target):
        parts[part] = found[part]
    return torch.cat([parts[part] for part in target.parts]).to(columns)


def to_softmax(
    found: dict[str, Tensor], source: Layout
) -> tuple[Tensor, Tensor]:
    """Turn the columns of any layout into those of a softmax.

    Args:
        found (dict[str, Tensor]): Columns of each part of the source.
        source (Layout): What they are.

    Returns:
        tuple[Tensor, Tensor]: Classes (C, F + 1), background (1, F + 1).
    """
    if 'sigmoids' in found:
        z = found['sigmoids'].clone()
        z[:, -1] += source.prior_logit
        return z, torch.zeros_like(z[:1])
    z = found['classes']
    if 'others' in found:
        o = found['others'][torch.tensor(source.bin_index)]
        b = found.get('background', found['others'].mean(0, keepdim=True))
    else:
        o = b = found['background']
    f = found.get('foreground', b)
    return z + (f - o), b


def describe(source: Layout, target: Layout) -> str:
    """Say by which rules the columns of the target come about."""
    moved = [' + foreground'] if 'foreground' in source.parts else []
    if 'others' in source.parts:
        moved += [' - others']
    elif 'foreground' in source.parts:
        moved += [' - background']
    background = 'the background row'
    less_background = [*moved, ' - background']
    if 'sigmoids' in source.parts:
        background, less_background = 'zero', moved
    elif 'background' not in source.parts:
        background, less_background = 'the mean of others', moved
        moved = [*moved, ' + their mean']
    rules = {
        'classes': f'class rows{"".join(moved) or " kept"}',
        'sigmoids': f'class rows{"".join(less_background) or " kept"}',
        'others': f'others from {background}',
        'foreground': f'foreground from {background}',
        'background': (
            f'background is {background}'
            if background != 'the background row'
            else 'background kept'
        ),
    }
    kept = source.common_parts(target)
    said = [f'{" and ".join(kept)} kept'] if kept else []
    said += [rules[part] for part in target.parts if part not in kept]
    change = source.prior_logit - target.prior_logit
    if change:
        said.append(f'{change:+.4g} in the bias of the classes')
    return ', '.join(said)


def columns_of_eqlv2(bin_index: np.ndarray, num_bins: int) -> np.ndarray:
    """Where our columns stand in the GroupSoftmax of the eqlv2 repository.

    There each bin has ``others``, then its classes in order of label; the
    last two columns are foreground and background.

    Args:
        bin_index (np.ndarray): Bin of each class (C,).
        num_bins (int): G.

    Returns:
        np.ndarray: (C + G + 2,), in the order of ``GROUPS``.
    """
    C, G = len(bin_index), num_bins
    bins = [np.append(C + g, np.flatnonzero(bin_index == g)) for g in range(G)]
    return np.argsort(np.concatenate([*bins, [C + G, C + G + 1]]))


def columns_of_original_bags(
    bin_index: np.ndarray, num_bins: int
) -> np.ndarray:
    """Where our columns stand in the repository of the BAGS paper.

    There background and foreground come first; then each bin has ``others``
    and its classes in order of label.

    Args:
        bin_index (np.ndarray): Bin of each class (C,).
        num_bins (int): G.

    Returns:
        np.ndarray: (C + G + 2,), in the order of ``GROUPS``.
    """
    C, G = len(bin_index), num_bins
    bins = [np.append(C + g, np.flatnonzero(bin_index == g)) for g in range(G)]
    return np.argsort(np.concatenate([[C + G + 1, C + G], *bins]))

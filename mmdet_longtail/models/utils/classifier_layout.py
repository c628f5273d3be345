"""Layouts of a classifier's columns, and the conversion between them.

A column is a row of the weight of ``fc_cls`` with its bias. A layout is the
sequence of column blocks that a loss declares as ``column_blocks``. Columns
are converted to a softmax, and from it to the target. With the columns z of a
class, o of ``others`` in its bin, f of foreground and b of background, the
softmax is:

- class z + f - o against background b. Exactly, P(class) / P(b) =
  e^(f - b) P(class | bin). P(class | bin) is about e^(z - o) as long as
  ``others`` is the most probable in the bin, as it is for most RoIs. Without
  ``others``, o is b. Without foreground, f is b. Without background, b is the
  mean of ``others``. So a softmax stays as it is.
- sigmoids are against background 0, and the constant of their loss is added.

The target is:

- sigmoids: class less background, less the constant of the loss. A sigmoid is
  a softmax of two, so the conversion is exact for each class by itself, and
  from sigmoids to softmax and back it is exact.
- bins: ``others`` and foreground are background. From softmax to bins and back
  the conversion is exact.

Blocks that both layouts have, with the same bins, are copied instead. Between
a softmax and bins no linear layer can predict the same: bins multiply
probabilities, each over its own sum of exponentials, and the logarithm of
such a sum is not linear.

Shapes: C classes, G bins, D columns, F input features.
"""

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
from mmdet_longtail.structures import ClassStatistics

SOFTMAX: tuple[ColumnBlock, ...] = ('classes', 'background')
OBJECTNESS: tuple[ColumnBlock, ...] = ('foreground', 'background')


@dataclass(frozen=True)
class Layout:
    """The columns of a classifier."""

    name: str  # for messages
    blocks: tuple[ColumnBlock, ...]
    num_classes: int  # C
    prior_logit: float = 0.0  # constant that the loss adds to sigmoids
    num_bins: int = 0  # G
    bin_index: tuple[int, ...] | None = None  # (C,), None if unknown

    @property
    def sizes(self) -> list[int]:
        """Number of columns per block."""
        sizes = block_sizes(self.blocks, self.num_classes, self.num_bins)
        return [*sizes.values()]

    def split(self, columns: Tensor) -> dict[ColumnBlock, Tensor]:
        """Split columns (D, F + 1) into blocks, in float64."""
        blocks = columns.double().split(self.sizes)
        return dict(zip(self.blocks, blocks, strict=True))

    def common_blocks(self, other: 'Layout') -> list[ColumnBlock]:
        """Return the blocks that have the same meaning in another layout."""
        own = (self.prior_logit, self.bin_index)
        if own != (other.prior_logit, other.bin_index):
            return []
        return [block for block in other.blocks if block in self.blocks]


def layout_of(
    loss: Any,
    num_classes: int,
    statistics: ClassStatistics | None = None,
    trained_bin_index: Tensor | None = None,
) -> Layout:
    """Return the layout of the loss_cls of a RoI head.

    The bins are those of ``trained_bin_index`` (C,), negative where unknown,
    else those that follow from the statistics of the training set.

    Raises:
        LongTailError: If the columns of the loss are not known.
    """
    name = type(loss).__name__
    if isinstance(loss, SeesawLoss):  # a group softmax with one bin
        blocks: tuple[ColumnBlock, ...] = ('classes', *OBJECTNESS)
        one_bin = (0,) * num_classes
        return Layout(name, blocks, num_classes, 0.0, 1, one_bin)
    if isinstance(loss, CrossEntropyLoss) and not loss.use_sigmoid:
        return Layout(name, SOFTMAX, num_classes)
    if not isinstance(loss, LongTailLoss):
        raise LongTailError(
            f'loss_cls={name}: its columns are not known; expected '
            'CrossEntropyLoss with use_sigmoid=False, SeesawLoss or a loss '
            'of mmdet_longtail for RoI heads'
        )
    bin_index = None
    if trained_bin_index is not None and (trained_bin_index >= 0).all():
        bin_index = tuple(trained_bin_index.tolist())
    elif loss.num_bins and statistics is not None:
        bin_index = tuple(loss.derive(statistics)['bin_index'].tolist())
    return Layout(
        name,
        loss.column_blocks,
        num_classes,
        loss.prior_logit,
        loss.num_bins,
        bin_index,
    )


def order_by_block(
    columns: Tensor, layout: Layout, objectness_first: bool
) -> Tensor:
    """Reorder columns (D, F + 1) of BAGS from the order by bin.

    Each bin has ``others``, then its classes in order of label. The eqlv2
    repository stores foreground and background last, the repository of the
    BAGS paper background and foreground first.
    """
    C, G = layout.num_classes, layout.num_bins
    bin_index = np.array(layout.bin_index)
    stored = [[C + g, *np.flatnonzero(bin_index == g)] for g in range(G)]
    if objectness_first:
        stored.insert(0, [C + G + 1, C + G])
    else:
        stored.append([C + G, C + G + 1])
    return columns[np.argsort(np.concatenate(stored))]


def convert_columns(
    columns: Tensor, source: Layout, target: Layout
) -> tuple[Tensor, str]:
    """Convert columns (D, F + 1) to those of another layout (D', F + 1).

    The bins of a source with ``others`` must be known. The text, for logs,
    names the blocks that are kept as they are.
    """
    found = source.split(columns)
    classes, background = to_softmax(found, source)
    sigmoids = classes - background
    sigmoids[:, -1] -= target.prior_logit
    blocks: dict[ColumnBlock, Tensor] = {
        'classes': classes,
        'sigmoids': sigmoids,
        'others': background.expand(target.num_bins, -1),
        'foreground': background,
        'background': background,
    }
    for block in source.common_blocks(target):
        blocks[block] = found[block]
    converted = {block: blocks[block] for block in target.blocks}
    kept = [
        block
        for block, values in converted.items()
        if block in found and torch.equal(values, found[block])
    ]
    computed = [block for block in converted if block not in kept]
    text = '; '.join(
        f'{", ".join(names)} {how}'
        for names, how in ((kept, 'kept'), (computed, 'computed'))
        if names
    )
    return torch.cat([*converted.values()]).to(columns), text


def to_softmax(
    found: dict[ColumnBlock, Tensor], source: Layout
) -> tuple[Tensor, Tensor]:
    """Convert blocks to classes (C, F + 1) and background (1, F + 1)."""
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

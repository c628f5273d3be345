"""Balanced Group Softmax (BAGS).

Li et al., Overcoming Classifier Imbalance for Long-tail Object Detection with
Balanced Group Softmax, CVPR 2020, https://arxiv.org/abs/2006.10408

Shapes: N RoIs, C classes, G bins, D = C + G + 2 channels, in the order
``[C classes | G others | foreground, background]``. Labels: 0..C-1
foreground, C background.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.losses.base import LongTailLoss, percent, warn_once
from mmdet_longtail.structures.class_statistics import (
    ClassStatistics,
    bin_names,
    check_bin_edges,
)


def balanced_group_softmax(
    logits: Tensor,
    targets: Tensor,
    columns: Tensor,
    group_sizes: Sequence[int],
) -> Tensor:
    """Softmax cross-entropy within each group of columns (section 4.1).

    Args:
        logits (Tensor): Raw scores (N, D).
        targets (Tensor): Position of the true column inside each group
            (N, G + 1).
        columns (Tensor): The columns of the first group, then of the second,
            and so on (D,).
        group_sizes (Sequence[int]): Number of columns of each group, G + 1
            of them with the sum D.

    Returns:
        Tensor: Loss of each row in each group (N, G + 1); 0 in a group
        without columns.
    """
    groups = logits.index_select(1, columns).split(group_sizes, dim=1)
    return torch.stack(
        [
            F.cross_entropy(z, y, reduction='none') if z.size(1) else z.sum(1)
            for z, y in zip(groups, targets.unbind(1), strict=True)
        ],
        dim=1,
    )


def group_softmax_probs(
    logits: Tensor,
    columns: Tensor,
    group_sizes: Sequence[int],
    probs_columns: Tensor,
) -> Tensor:
    """P(j) = p_foreground * p_bin(j) (section 4.3); not renormalised.

    Args:
        logits (Tensor): Raw scores (N, D).
        columns (Tensor): As in :func:`balanced_group_softmax` (D,).
        group_sizes (Sequence[int]): As there; the last group is
            (foreground, background).
        probs_columns (Tensor): Where each class, then background, stands in
            ``columns`` (C + 1,).

    Returns:
        Tensor: Probabilities (N, C + 1), background last.
    """
    groups = columns.split(group_sizes)
    p_group = torch.cat(
        [logits.index_select(1, group).softmax(1) for group in groups], 1
    )  # (N, D)
    p_foreground = p_group[:, -2:-1]
    probs = p_group.index_select(1, probs_columns)
    probs[:, :-1] *= p_foreground
    return probs


def sample_others(
    in_bin: Tensor, is_candidate: Tensor, others_ratio: float
) -> Tensor:
    """Draw the rows that train the ``others`` column of each bin.

    A bin with F rows of its own gets int(others_ratio * F) of the other
    rows, as published, uniformly without replacement, or all when there are
    fewer: 1e9 stands for all, and a bin with one row gets none at 0.5.

    Args:
        in_bin (Tensor): Whether the row's class is in the bin, bool (N, G).
        is_candidate (Tensor): Whether the row may be drawn, bool (N, G).
        others_ratio (float): beta, drawn rows per row of the bin, >= 0.

    Returns:
        Tensor: The drawn rows, bool (N, G).
    """
    num_drawn = (in_bin.sum(0).double() * others_ratio).floor()  # (G,)
    order = torch.rand(in_bin.shape, device=in_bin.device)
    rank = order.masked_fill(~is_candidate, 2.0).argsort(0).argsort(0)
    return is_candidate & (rank < num_drawn)


@MODELS.register_module()
class BalancedGroupSoftmaxLoss(LongTailLoss):
    """Balanced Group Softmax for RoI heads; C + G + 2 channels.

    Classes with similarly many training boxes share a softmax, so that a
    frequent class cannot suppress a rare one. Each bin has a column
    ``others`` for a class of another bin or background, and a last group
    tells foreground from background.

    The loss is a dict of G + 1 terms, ``loss_cls_<bin>`` and
    ``loss_cls_foreground``, whose sum is the loss. Each is normalised by the
    sum of its own row weights, at least 1, so ``avg_factor`` is accepted and
    not used. A bin without a foreground row contributes zero.

    Args:
        num_classes (int): Number of foreground classes, C.
        bin_edges (Sequence[float]): The G - 1 inner edges of the bins, in
            training boxes, increasing; a class with exactly an edge's number
            is in the bin above. Defaults to (10, 100, 1000), the paper's.
        others_ratio (float): beta, rows of ``others`` drawn for each
            foreground row of a bin, >= 0; 1e9 for all there are. Defaults to
            8.0, the paper's.
        loss_weight (float): Factor of the loss. Defaults to 1.0.

    Raises:
        LongTailError: If bin_edges is empty, not increasing or not positive,
            or others_ratio is negative.
    """

    bin_index: Tensor
    in_bin: Tensor
    bin_targets: Tensor
    columns: Tensor
    probs_columns: Tensor

    def __init__(
        self,
        num_classes: int,
        bin_edges: Sequence[float] = (10, 100, 1000),
        others_ratio: float = 8.0,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(num_classes, loss_weight)
        check_bin_edges(bin_edges, type(self).__name__)
        if not others_ratio >= 0:
            raise LongTailError(
                f'{type(self).__name__}: others_ratio is {others_ratio}, '
                'expected a number >= 0'
            )
        self.bin_edges = tuple(bin_edges)
        self.others_ratio = others_ratio
        self.num_bins = len(self.bin_edges) + 1
        C, G = num_classes, self.num_bins
        D = self.get_cls_channels(C)
        groups = self.column_groups(np.zeros(C, dtype=np.int64))
        self.group_sizes = dict.fromkeys(groups, 0)
        self.register_buffer('bin_index', torch.zeros(C, dtype=torch.int64))
        self.register_buffer(
            'in_bin', torch.zeros(C + 1, G, dtype=torch.bool), persistent=False
        )
        for name, shape in (
            ('bin_targets', (C + 1, len(groups))),
            ('columns', (D,)),
            ('probs_columns', (C + 1,)),
        ):
            self.register_buffer(
                name, torch.zeros(shape, dtype=torch.int64), persistent=False
            )

    def get_cls_channels(self, num_classes: int) -> int:
        """The classes, an ``others`` for each bin, foreground, background."""
        return num_classes + self.num_bins + 2

    def column_groups(self, bin_index: np.ndarray) -> dict[str, np.ndarray]:
        """Columns of each softmax, by the name of its term.

        A bin has its classes by label, then its ``others``.

        Args:
            bin_index (np.ndarray): Bin of each class (C,).
        """
        C, G = self.num_classes, self.num_bins
        groups = {
            name: np.append(np.flatnonzero(bin_index == g), C + g)
            for g, name in enumerate(bin_names(self.bin_edges))
        }
        return groups | {'foreground': np.array([C + G, C + G + 1])}

    def derive(self, statistics: ClassStatistics) -> None:
        """Lay the columns out by bin."""
        C, G = self.num_classes, self.num_bins
        bin_index = statistics.bin_index(self.bin_edges)
        groups = self.column_groups(bin_index)
        sizes = np.array([len(group) for group in groups.values()])
        first = np.cumsum(sizes) - sizes  # of each group in `columns`
        columns = np.concatenate(list(groups.values()))
        position = np.argsort(columns)  # of a column in `columns`
        targets = np.tile(sizes - 1, (C + 1, 1))  # others, background
        targets[np.arange(C), bin_index] = position[:C] - first[bin_index]
        targets[:C, G:] = 0  # foreground
        in_bin = np.append(bin_index, -1)[:, None] == np.arange(G)

        self.group_sizes = dict(zip(groups, sizes.tolist(), strict=True))
        self.bin_index.copy_(torch.as_tensor(bin_index))
        self.in_bin.copy_(torch.as_tensor(in_bin))
        self.bin_targets.copy_(torch.as_tensor(targets))
        self.columns.copy_(torch.as_tensor(columns))
        self.probs_columns.copy_(
            torch.as_tensor(np.append(position[:C], position[-1]))
        )

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        loaded = state_dict.get(f'{prefix}bin_index')
        if (
            loaded is not None
            and loaded.shape == self.bin_index.shape
            and not torch.equal(loaded.cpu(), self.bin_index.cpu())
        ):
            moved = int((loaded.cpu() != self.bin_index.cpu()).sum())
            raise LongTailError(
                f'{type(self).__name__}: bin_edges={self.bin_edges} puts '
                f'{moved} of {self.num_classes} classes into other bins than '
                'the checkpoint has: set the bin_edges that it was trained '
                'with'
            )

    def check_statistics(self, statistics: ClassStatistics) -> None:
        """Warn when all classes share one bin."""
        if len(np.unique(statistics.bin_index(self.bin_edges))) > 1:
            return
        from mmdet_longtail.structures.suggestions import suggest_bin_edges

        warn_once(
            f'{type(self).__name__}: with '
            f'bin_edges={self.bin_edges} all {self.num_classes} classes are '
            'in one bin, so nothing is balanced; this data suggests '
            f'bin_edges={suggest_bin_edges(statistics).value}'
        )

    def describe(self, statistics: ClassStatistics) -> dict[str, float]:
        """How many classes and training boxes each bin has."""
        bin_index = statistics.bin_index(self.bin_edges)
        described: dict[str, float] = {}
        for b, name in enumerate(bin_names(self.bin_edges)):
            in_bin = bin_index == b
            described[f'num_classes_{name}'] = int(in_bin.sum())
            described[f'num_instances_{name}'] = int(
                statistics.instance_count[in_bin].sum()
            )
        return described

    def row_weights(
        self, labels: Tensor, label_weights: Tensor | None
    ) -> Tensor:
        """Weight of each row in each group (N, G + 1).

        A bin counts its own rows and the drawn others; the last group counts
        every row. Rows of weight 0 are neither.
        """
        if label_weights is None:
            label_weights = self.columns.new_ones(
                len(labels), dtype=torch.float
            )
        is_used = (label_weights > 0).unsqueeze(1)  # (N, 1)
        is_counted = self.counted_rows(self.in_bin[labels], is_used)
        return is_counted * label_weights.unsqueeze(1)

    def counted_rows(self, is_own: Tensor, is_used: Tensor) -> Tensor:
        """Which rows each group counts, bool (N, G + 1).

        Args:
            is_own (Tensor): Whether the row's class is in the bin, bool
                (N, G).
            is_used (Tensor): Whether the row has a weight, bool (N, 1).
        """
        in_bin = is_own & is_used
        drawn = sample_others(in_bin, ~is_own & is_used, self.others_ratio)
        return torch.cat([in_bin | drawn, is_used], 1)

    def forward(
        self,
        cls_score: Tensor,
        labels: Tensor,
        label_weights: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
    ) -> dict[str, Tensor]:
        """One term for each bin and one for foreground against background.

        Args:
            cls_score (Tensor): Raw scores (N, C + G + 2).
            labels (Tensor): Labels (N,).
            label_weights (Tensor, optional): Weights (N,).
            avg_factor (float or Tensor, optional): Not used; each term has
                the sum of its own row weights.
            reduction_override (str, optional): 'mean', 'sum' or 'none'.

        Returns:
            dict[str, Tensor]: G + 1 terms, 0-dim, or (N,) with 'none'.
        """
        logits = self.prepare(cls_score)
        terms = balanced_group_softmax(
            logits,
            self.bin_targets[labels],
            self.columns,
            list(self.group_sizes.values()),
        )
        weights = self.row_weights(labels, label_weights).to(terms)
        return {
            f'loss_cls_{name}': self.reduce(
                term, weight, weight.sum().clamp(min=1), reduction_override
            )
            for name, term, weight in zip(
                self.group_sizes,
                terms.unbind(1),
                weights.unbind(1),
                strict=True,
            )
        }

    def get_activation(self, cls_score: Tensor) -> Tensor:
        """Probabilities (N, C + 1), background last; rows can exceed 1.

        Args:
            cls_score (Tensor): Raw scores (N, C + G + 2).
        """
        return group_softmax_probs(
            self.prepare(cls_score),
            self.columns,
            list(self.group_sizes.values()),
            self.probs_columns,
        )

    def get_accuracy(
        self, cls_score: Tensor, labels: Tensor
    ) -> dict[str, Tensor]:
        """Accuracy among classes and of foreground against background.

        Args:
            cls_score (Tensor): Raw scores (N, C + G + 2).
            labels (Tensor): Labels (N,).

        Returns:
            dict[str, Tensor]: ``acc_classes`` over foreground RoIs and
            ``acc_objectness`` over all, percent.
        """
        predicted_foreground = cls_score[:, -2] > cls_score[:, -1]
        is_foreground = labels < self.num_classes
        accuracy = super().get_accuracy(cls_score, labels)
        accuracy['acc_objectness'] = percent(
            predicted_foreground == is_foreground,
            torch.ones_like(is_foreground),
        )
        return accuracy

    def extra_repr(self) -> str:
        """Show the settings where PyTorch prints the module."""
        return (
            f'{super().extra_repr()}, bin_edges={self.bin_edges}, '
            f'others_ratio={self.others_ratio}'
        )

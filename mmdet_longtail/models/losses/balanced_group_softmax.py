"""Balanced Group Softmax (BAGS).

Li et al., Overcoming Classifier Imbalance for Long-tail Object Detection with
Balanced Group Softmax, CVPR 2020, https://arxiv.org/abs/2006.10408

Shapes: N RoIs, C classes, G bins, D = C + G + 2 channels, in the order
``[C classes | G others | foreground, background]``. Labels: 0..C-1
foreground, C background.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.losses.base import (
    ColumnBlock,
    LongTailLoss,
    percent,
    warn_once,
)
from mmdet_longtail.models.losses.reweighted_softmax import (
    ReweightedLoss,
)
from mmdet_longtail.structures.class_statistics import (
    ClassStatistics,
    bin_names,
    check_bin_edges,
)
from mmdet_longtail.structures.suggestions import suggest_settings
from mmdet_longtail.utils.checks import check_numbers
from mmdet_longtail.utils.class_names import list_names


class SplitColumns(torch.autograd.Function):
    """Split scores into groups of columns.

    The arguments of ``apply`` are raw scores (N, D), the columns (D,) of one
    group after the other, the position (D,) of each column among these, and
    the sizes of the groups. The results are the scores (N, D_g) of each
    group.

    Its backward gathers, where that of ``index_select`` scatters, which
    takes twice the time.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        columns: Tensor,
        position: Tensor,
        sizes: Sequence[int],
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(position)
        return tuple(logits.index_select(1, g) for g in columns.split(sizes))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (position,) = ctx.saved_tensors
        gradient = torch.cat(gradients, 1).index_select(1, position)
        return gradient, None, None, None


def balanced_group_softmax(
    groups: Sequence[Tensor], targets: Tensor
) -> Tensor:
    """Compute softmax cross-entropy within each group (section 4.1).

    Args:
        groups (Sequence[Tensor]): Raw scores (N, D_g) of each group.
        targets (Tensor): Position of the true column in each group (N, G + 1).

    Returns:
        Tensor: Loss per row and group (N, G + 1); 0 in a group without
        columns.

    Examples:
        >>> groups = torch.zeros(1, 2), torch.zeros(1, 3), torch.zeros(1, 2)
        >>> balanced_group_softmax(groups, torch.tensor([[1, 0, 0]]))
        tensor([[0.6931, 1.0986, 0.6931]])
    """
    return torch.stack(
        [
            F.cross_entropy(z, y, reduction='none') if z.size(1) else z.sum(1)
            for z, y in zip(groups, targets.unbind(1), strict=True)
        ],
        dim=1,
    )


def group_softmax_probs(
    groups: Sequence[Tensor], probs_columns: Tensor
) -> Tensor:
    """Compute P(j) = p_foreground * p_bin(j) (section 4.3).

    A row is not renormalised, so its sum can exceed 1.

    Args:
        groups (Sequence[Tensor]): Raw scores (N, D_g) of each group, the last
            of which is (foreground, background).
        probs_columns (Tensor): Position of each class, then of background,
            among the columns of all groups (C + 1,).

    Returns:
        Tensor: Probabilities (N, C + 1), background last.

    Examples:
        >>> # ibex, others | dog, others | foreground, background
        >>> zeros = torch.zeros(1, 2)
        >>> groups = zeros, torch.tensor([[1.0, 0.0]]), zeros
        >>> dog_ibex_background = torch.tensor([2, 0, 5])
        >>> group_softmax_probs(groups, dog_ibex_background)
        tensor([[0.3655, 0.2500, 0.5000]])
    """
    p_group = torch.cat([z.softmax(1) for z in groups], 1)  # (N, D)
    probs = p_group.index_select(1, probs_columns)
    probs[:, :-1] *= p_group[:, -2:-1]
    return probs


def sample_others(
    in_bin: Tensor, is_candidate: Tensor, others_ratio: float
) -> Tensor:
    """Draw the rows that train the ``others`` column of each bin.

    A bin with F rows of its own gets int(others_ratio * F) of the candidates,
    as published, uniformly without replacement, or all when there are fewer.
    So 1e9 stands for all, and 0.5 gives a bin with one row none.

    Args:
        in_bin (Tensor): Whether the row's class is in the bin, bool (N, G).
        is_candidate (Tensor): Whether the row may be drawn, bool (N, G).
        others_ratio (float): beta, drawn rows per row of the bin, >= 0.

    Returns:
        Tensor: The drawn rows, bool (N, G).

    Examples:
        >>> in_bin = torch.tensor([[True], [False], [False]])
        >>> drawn = sample_others(in_bin, ~in_bin, others_ratio=1.0)
        >>> drawn.sum()
        tensor(1)
    """
    num_drawn = (in_bin.sum(0).double() * others_ratio).floor()  # (G,)
    draw = torch.rand(in_bin.shape, device=in_bin.device)
    order = draw.masked_fill(~is_candidate, 2.0).argsort(0)  # (N, G)
    rank = torch.arange(len(order), device=order.device).unsqueeze(1)
    is_first = rank < num_drawn  # (N, G)
    return is_candidate & is_first.scatter(0, order, is_first)


@MODELS.register_module()
class BalancedGroupSoftmaxLoss(LongTailLoss):
    """Balanced Group Softmax for RoI heads; C + G + 2 channels.

    Classes with similarly many training boxes share a softmax, so that a
    frequent class cannot suppress a rare one. Each bin has a column
    ``others`` for a class of another bin or background. The last group
    separates foreground from background.

    The loss is a dict of G + 1 terms, ``loss_cls_<bin>`` and
    ``loss_cls_foreground``, whose sum is the loss. Each is normalised by the
    sum of its own row weights, at least 1, so ``avg_factor`` is accepted and
    not used. A bin without a foreground row contributes zero.

    Args:
        bin_edges (Sequence[float]): The G - 1 inner edges of the bins, in
            training boxes, increasing; a class with exactly an edge's number
            is in the bin above. Defaults to (10, 100, 1000), the paper's.
        others_ratio (float): beta, rows of ``others`` drawn per foreground
            row of a bin, at least 0; 1e9 for all there are. Defaults to 8.0,
            the paper's.

    Raises:
        LongTailError: If bin_edges is empty, not increasing or not positive;
            and, on load, if the checkpoint was trained with other bin_edges.

    Examples:
        >>> statistics = ClassStatistics(
        ...     ('dog', 'ibex'), [90, 2], [120, 3], 100, 91
        ... )
        >>> loss = BalancedGroupSoftmaxLoss(num_classes=2, bin_edges=(10,))
        >>> loss.set_class_statistics(statistics)
        >>> terms = loss(torch.zeros(2, 6), torch.tensor([0, 2]))
        >>> for name, term in terms.items():
        ...     print(f'{name} {term:.4f}')
        loss_cls_below_10 0.0000
        loss_cls_from_10 0.6931
        loss_cls_foreground 0.6931
    """

    column_blocks: tuple[ColumnBlock, ...] = (
        'classes',
        'others',
        'foreground',
        'background',
    )
    predicts_with_class_statistics = True
    normalizer = 'own'
    explanation = (
        'classes with similarly many training boxes share a softmax of their '
        'own, so a frequent class cannot push a rare one down.'
    )

    bin_index: Tensor
    trained_bin_edges: Tensor
    in_bin: Tensor
    targets: Tensor
    columns: Tensor
    position: Tensor
    probs_columns: Tensor

    def __init__(
        self,
        num_classes: int,
        bin_edges: Sequence[float] = (10, 100, 1000),
        others_ratio: float = 8.0,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(num_classes, loss_weight)
        name = type(self).__name__
        check_bin_edges(bin_edges, name)
        check_numbers(name, '[0, inf)', others_ratio=others_ratio)
        self.bin_edges = tuple(bin_edges)
        self.others_ratio = others_ratio
        self.num_bins = len(self.bin_edges) + 1
        self.has_objectness = 'foreground' in self.column_blocks
        self.add_derived('bin_index', (num_classes,), torch.int64)
        edges = torch.tensor(self.bin_edges, dtype=torch.float32)
        self.register_buffer('trained_bin_edges', edges)
        for name, table in self.tables(np.zeros(num_classes, int)).items():
            self.register_buffer(name, torch.tensor(table), persistent=False)

    def derive(self, statistics: ClassStatistics) -> dict[str, np.ndarray]:
        """Compute the bin of each class."""
        return {'bin_index': statistics.bin_index(self.bin_edges)}

    def use_derived(self, derived: dict[str, np.ndarray]) -> None:
        """Fill the buffers with the tables of the bins."""
        for name, table in self.tables(derived['bin_index']).items():
            getattr(self, name).copy_(torch.as_tensor(table))

    def tables(self, bin_index: np.ndarray) -> dict[str, np.ndarray]:
        """Lay the columns out by bin, and set ``group_sizes``.

        C = 3 classes with bin_index (1, 0, 1) in G = 2 bins have the columns
        0 1 2 | 3 4 | 5 6, and these tables::

            group      columns        targets of class 0, 1, 2, background
            bin 0      1, 3           1  0  1  1
            bin 1      0, 2, 4        0  2  1  2
            foreground 5, 6           0  0  0  1

            columns = 1 3 0 2 4 5 6, position = 2 0 3 1 4 5 6

        A target is the position of the true column in its group.
        ``position`` is that of each channel in ``columns``, and
        ``probs_columns`` are the positions of the classes and of background.
        """
        C, G = self.num_classes, self.num_bins
        channels = np.arange(self.get_cls_channels(C))
        others = channels[C : C + G] if 'others' in self.column_blocks else ()
        groups = {}
        targets = np.empty((C + 1, G + self.has_objectness), dtype=np.int64)
        for g, name in enumerate(bin_names(self.bin_edges)):
            own = np.flatnonzero(bin_index == g)
            groups[name] = np.append(own, others[g : g + 1]).astype(int)
            targets[:, g] = len(groups[name]) - 1
            targets[own, g] = np.arange(len(own))
        if self.has_objectness:
            groups['foreground'] = channels[-2:]
            targets[:, G] = np.arange(C + 1) == C
        columns = np.concatenate([*groups.values()])
        position = np.argsort(columns)
        self.group_sizes = {name: len(group) for name, group in groups.items()}
        return {
            'in_bin': np.append(bin_index, -1)[:, None] == np.arange(G),
            'targets': targets,
            'columns': columns,
            'position': position,
            'probs_columns': np.append(position[:C], position[-1]),
        }

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        own = torch.tensor(self.bin_edges)
        loaded = state_dict.get(f'{prefix}trained_bin_edges', own).cpu()
        if not torch.equal(loaded, own.to(loaded.dtype)):
            raise LongTailError(
                f'{type(self).__name__}: bin_edges is {self.bin_edges}, but '
                f'the checkpoint was trained with {tuple(loaded.tolist())}: '
                'set the bin_edges of the checkpoint'
            )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def check_statistics(self, statistics: ClassStatistics) -> None:
        """Warn if all classes share one bin."""
        if self._num_used_bins(statistics, self.bin_edges) > 1:
            return
        suggested, reason = suggest_settings(statistics)['bin_edges']
        way_out = f'this data suggests bin_edges={suggested}'
        if suggested is None or self._num_used_bins(statistics, suggested) < 2:
            way_out = f'use a plain loss ({reason})'
        warn_once(
            f'{type(self).__name__}: with bin_edges={self.bin_edges} all '
            f'{self.num_classes} classes are in one bin, so nothing is '
            f'balanced; {way_out}'
        )

    @staticmethod
    def _num_used_bins(
        statistics: ClassStatistics, bin_edges: Sequence[float]
    ) -> int:
        """Count the bins that hold a class."""
        return len(np.unique(statistics.bin_index(bin_edges)))

    def describe(self, statistics: ClassStatistics) -> dict[str, float]:
        """Return the number of classes and training boxes of each bin."""
        described: dict[str, float] = {}
        for group in statistics.bin_groups(self.bin_edges):
            boxes = statistics.instance_count[group.members]
            described[f'num_classes_{group.name}'] = len(boxes)
            described[f'num_instances_{group.name}'] = int(boxes.sum())
        return described

    def describe_classes(self, statistics: ClassStatistics) -> list[str]:
        """Return a line per bin with its first classes, the rarest first."""
        counts, names = statistics.instance_count, statistics.class_names
        lines = []
        for group in statistics.bin_groups(self.bin_edges):
            order = np.argsort(counts, kind='stable')
            own = [names[c] for c in order if group.members[c]]
            boxes = counts[group.members].sum()
            named = f': {list_names(own, 5)}' if own else ''
            lines.append(
                f'bin {group.name}: {len(own):,} classes, {boxes:,} boxes'
                f'{named}'
            )
        return lines

    def row_weights(
        self, labels: Tensor, label_weights: Tensor | None
    ) -> Tensor:
        """Compute the weight per row and group (N, G + 1).

        A bin counts its own rows and the drawn ``others``; the last group
        counts every row. No group counts a row of weight 0.
        """
        if label_weights is None:
            label_weights = torch.ones_like(labels, dtype=torch.float)
        is_used = (label_weights > 0).unsqueeze(1)  # (N, 1)
        is_own = self.in_bin[labels]  # (N, G)
        in_bin = is_own & is_used
        drawn = sample_others(in_bin, ~is_own & is_used, self.others_ratio)
        is_counted = in_bin | drawn
        if self.has_objectness:
            is_counted = torch.cat([is_counted, is_used], 1)
        return is_counted * label_weights.unsqueeze(1)

    def split(self, logits: Tensor) -> tuple[Tensor, ...]:
        """Split logits (N, D) into those of each group (N, D_g)."""
        sizes = [*self.group_sizes.values()]
        return SplitColumns.apply(logits, self.columns, self.position, sizes)

    def forward(
        self,
        cls_score: Tensor,
        labels: Tensor,
        label_weights: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
    ) -> dict[str, Tensor]:
        """Compute the terms by name; ``avg_factor`` is not used."""
        self.require_class_statistics()
        terms = balanced_group_softmax(
            self.split(self.prepare(cls_score)), self.targets[labels]
        )
        weights = self.row_weights(labels, label_weights).to(terms)
        return {
            f'loss_cls_{name}': self.reduce(
                term, weight, weight.sum().clamp(min=1), reduction_override
            )
            for name, term, weight in zip(
                self.group_sizes, terms.unbind(1), weights.unbind(1)
            )
        }

    def probs(self, logits: Tensor) -> Tensor:
        """Compute :func:`group_softmax_probs`."""
        return group_softmax_probs(self.split(logits), self.probs_columns)

    def get_accuracy(
        self, cls_score: Tensor, labels: Tensor
    ) -> dict[str, Tensor]:
        """Compute the accuracy, and ``acc_objectness`` over all RoIs."""
        accuracy = super().get_accuracy(cls_score, labels)
        if self.has_objectness:
            predicted_foreground = cls_score[:, -2] > cls_score[:, -1]
            is_correct = predicted_foreground == (labels < self.num_classes)
            accuracy['acc_objectness'] = percent(
                is_correct, torch.ones_like(is_correct)
            )
        return accuracy


# -- the ablations of the paper -------------------------------------------


@MODELS.register_module()
class BalancedGroupSoftmaxWithoutOthersLoss(BalancedGroupSoftmaxLoss):
    """Balanced Group Softmax without ``others``; C + 2 channels.

    The columns are ``[C classes | foreground, background]``. Each bin is a
    softmax over its own classes and counts its own rows only, so no column
    stands for another bin: P(j) = p_foreground * p_bin(j). The only class of
    a bin has p_bin(j) = 1 and the loss 0. Terms and arguments are those of
    :class:`BalancedGroupSoftmaxLoss` without ``others_ratio``.

    Source: ``GSBBoxHead`` of the authors' configs, without ``with0``.

    Examples:
        >>> statistics = ClassStatistics(
        ...     ('dog', 'ibex'), [90, 2], [120, 3], 100, 91
        ... )
        >>> loss = BalancedGroupSoftmaxWithoutOthersLoss(2, bin_edges=(10,))
        >>> loss.set_class_statistics(statistics)
        >>> terms = loss(torch.zeros(2, 4), torch.tensor([0, 2]))
        >>> for name, term in terms.items():
        ...     print(f'{name} {term:.4f}')
        loss_cls_below_10 0.0000
        loss_cls_from_10 0.0000
        loss_cls_foreground 0.6931
    """

    column_blocks = ('classes', 'foreground', 'background')

    def __init__(self, num_classes: int, **settings: Any) -> None:
        super().__init__(num_classes, others_ratio=0.0, **settings)


@MODELS.register_module()
class BalancedGroupSoftmaxWithoutBackgroundLoss(BalancedGroupSoftmaxLoss):
    """Balanced Group Softmax without its background group; C + G channels.

    The columns are ``[C classes | G others]``. Background is ``others`` in
    every bin, like a class of another bin: P(j) = p_bin(j). NMS does not read
    the probability of background, and the paper has none. Here it is the
    product of p(others) over the bins, where an empty bin has 1. Only those
    rows of background train that are drawn as ``others``.

    The G terms and the arguments are those of
    :class:`BalancedGroupSoftmaxLoss`.

    Examples:
        >>> statistics = ClassStatistics(
        ...     ('dog', 'ibex'), [90, 2], [120, 3], 100, 91
        ... )
        >>> loss = BalancedGroupSoftmaxWithoutBackgroundLoss(2, (10,))
        >>> loss.set_class_statistics(statistics)
        >>> terms = loss(torch.zeros(2, 4), torch.tensor([0, 2]))
        >>> for name, term in terms.items():
        ...     print(f'{name} {term:.4f}')
        loss_cls_below_10 0.0000
        loss_cls_from_10 0.6931
    """

    column_blocks = ('classes', 'others')

    def probs(self, logits: Tensor) -> Tensor:
        """Compute p_bin(j), and the product of p(others)."""
        p_bins = [z.softmax(1) for z in self.split(logits)]
        p_others = torch.stack([p[:, -1] for p in p_bins], 1)  # (N, G)
        p_classes = torch.cat(p_bins, 1)[:, self.probs_columns[:-1]]
        return torch.cat([p_classes, p_others.prod(1, keepdim=True)], 1)


@MODELS.register_module()
class ReweightedBalancedGroupSoftmaxLoss(
    BalancedGroupSoftmaxLoss, ReweightedLoss
):
    """Balanced Group Softmax with class weights in each bin.

    In its own bin a row has the weight of its class: the rule's formula on
    the training boxes of the class, n = instance_count (1 where there are
    none), divided by its mean over the classes of the bin, then clipped.
    Rows of ``others``, and all rows of foreground against background, have
    the weight 1. Each term is normalised by the sum of these weights, at
    least 1.

    Args:
        class_weight (dict): As in :class:`ReweightedSoftmaxLoss`.
        others_ratio (float): As in :class:`BalancedGroupSoftmaxLoss`.
            Defaults to 6.0, the authors' with class weights.
        weight_range (tuple[float, float], optional): As in
            :class:`ReweightedSoftmaxLoss`. Defaults to (0.1, 5.0), the
            authors'.

    The other arguments are those of :class:`BalancedGroupSoftmaxLoss`.

    Source: ``gs_bbox_head_with0_reweight.py`` of the authors' code, with
    InverseClassWeight.

    Examples:
        >>> statistics = ClassStatistics(
        ...     ('dog', 'ibex'), [90, 2], [120, 3], 100, 91
        ... )
        >>> loss = ReweightedBalancedGroupSoftmaxLoss(
        ...     2, dict(type='InverseClassWeight'), bin_edges=(1000,)
        ... )
        >>> loss.set_class_statistics(statistics)
        >>> loss.class_weight
        tensor([0.1000, 1.9512])
        >>> terms = loss(torch.zeros(2, 6), torch.tensor([0, 2]))
        >>> for name, term in terms.items():
        ...     print(f'{name} {term:.4f}')
        loss_cls_below_1000 1.0986
        loss_cls_from_1000 0.0000
        loss_cls_foreground 0.6931
    """

    def __init__(
        self,
        num_classes: int,
        class_weight: dict[str, Any],
        others_ratio: float = 6.0,
        weight_range: tuple[float, float] | None = (0.1, 5.0),
        **settings: Any,
    ) -> None:
        super().__init__(num_classes, others_ratio=others_ratio, **settings)
        self.set_class_weight(class_weight, weight_range)

    def derive(self, statistics: ClassStatistics) -> dict[str, np.ndarray]:
        """Compute the bin of each class, and its weight in the bin."""
        bin_index = statistics.bin_index(self.bin_edges)
        class_weight = np.empty(self.num_classes)
        for g in np.unique(bin_index):
            own = bin_index == g
            class_weight[own] = self.weigh(statistics.instance_count[own])
        return {'bin_index': bin_index, 'class_weight': class_weight}

    def row_weights(
        self, labels: Tensor, label_weights: Tensor | None
    ) -> Tensor:
        """Compute the weight per row and group (N, G + 1)."""
        counted = super().row_weights(labels, label_weights)
        w = F.pad(self.class_weight, (0, 1), value=1.0)[labels]  # (N,)
        is_own = F.pad(self.in_bin[labels], (0, 1))  # (N, G + 1)
        return counted * torch.where(is_own, w.unsqueeze(1), 1.0)

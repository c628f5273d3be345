"""Balanced Group Softmax without one of its parts, or with class weights.

The ablations of Li et al., Overcoming Classifier Imbalance for Long-tail
Object Detection with Balanced Group Softmax, CVPR 2020,
https://arxiv.org/abs/2006.10408

Shapes: N RoIs, C classes, G bins. Labels: 0..C-1 foreground, C background.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor

from mmdet_longtail.models.losses.balanced_group_softmax import (
    BalancedGroupSoftmaxLoss,
)
from mmdet_longtail.models.losses.reweighted_softmax import (
    RelativeClassWeight,
)
from mmdet_longtail.structures.class_statistics import ClassStatistics


def group_softmax_probs_without_background(
    logits: Tensor,
    columns: Tensor,
    group_sizes: Sequence[int],
    class_columns: Tensor,
) -> Tensor:
    """Compute P(j) = p_bin(j), with the product of p(others) as background.

    Args:
        logits (Tensor): Raw scores (N, C + G).
        columns (Tensor): The columns (C + G,), bin by bin, ``others`` last.
        group_sizes (Sequence[int]): Number of columns per bin, (G,).
        class_columns (Tensor): Position of each class in ``columns`` (C,).

    Returns:
        Tensor: Probabilities (N, C + 1), background last.
    """
    p_bins = [
        logits.index_select(1, group).softmax(1)
        for group in columns.split(group_sizes)
    ]
    p_background = torch.stack([p[:, -1] for p in p_bins], 1).prod(1)  # (N,)
    p_classes = torch.cat(p_bins, 1).index_select(1, class_columns)  # (N, C)
    return torch.cat([p_classes, p_background.unsqueeze(1)], 1)


@MODELS.register_module()
class BalancedGroupSoftmaxWithoutOthersLoss(BalancedGroupSoftmaxLoss):
    """Balanced Group Softmax without ``others``; C + 2 channels.

    The columns are ``[C classes | foreground, background]``. Each bin is a
    softmax over its own classes and counts its own rows only, so no column
    stands for another bin: P(j) = p_foreground * p_bin(j). The only class of
    a bin has p_bin(j) = 1 and the loss 0. Terms and arguments are those of
    :class:`BalancedGroupSoftmaxLoss` without ``others_ratio``.

    Source: ``GSBBoxHead`` of the authors' configs, without ``with0``.
    """

    column_blocks = ('classes', 'foreground', 'background')

    def __init__(
        self,
        num_classes: int,
        bin_edges: Sequence[float] = (10, 100, 1000),
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(
            num_classes, bin_edges, others_ratio=0.0, loss_weight=loss_weight
        )


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
    """

    column_blocks = ('classes', 'others')

    def probs(self, logits: Tensor) -> Tensor:
        """Compute :func:`group_softmax_probs_without_background`."""
        return group_softmax_probs_without_background(
            logits,
            self.columns,
            [*self.group_sizes.values()],
            self.probs_columns[:-1],
        )


@MODELS.register_module()
class ReweightedBalancedGroupSoftmaxLoss(BalancedGroupSoftmaxLoss):
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
    """

    class_weight: Tensor

    def __init__(
        self,
        num_classes: int,
        class_weight: dict[str, Any],
        bin_edges: Sequence[float] = (10, 100, 1000),
        others_ratio: float = 6.0,
        weight_range: tuple[float, float] | None = (0.1, 5.0),
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(num_classes, bin_edges, others_ratio, loss_weight)
        self.weigh = RelativeClassWeight.of(self, class_weight, weight_range)
        self.add_derived('class_weight', (num_classes,))

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

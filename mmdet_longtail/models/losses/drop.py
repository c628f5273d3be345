"""DropLoss: background spares tail classes as often as they are rare.

Hsieh et al., DropLoss for Long-Tail Instance Segmentation, AAAI 2021,
https://arxiv.org/abs/2104.06402, and its code.

Shapes: N RoIs, C classes. Labels: 0..C-1 foreground, C background.
"""

from typing import Any

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor

from mmdet_longtail.models.losses.base import ColumnBlock
from mmdet_longtail.models.losses.equalization import TailLoss, keep_positives
from mmdet_longtail.models.losses.sigmoid import WeightedSigmoidCrossEntropy


def drop_weight(labels: Tensor, tail_weight: Tensor, random: Tensor) -> Tensor:
    r"""Compute the weight w_j of each row and class, 0 where it is dropped.

    .. math::
        w_j = 1 - d_j\, T_j\, (1 - y_j)

    d is 1 in the rows of foreground. In a row of background d_j is 1 if u_j
    > rho, with u from U(0, 1) and rho the share of tail classes among the
    foreground rows of the batch. A batch without foreground drops nothing, as
    in the published code, where rho is nan.

    Args:
        labels (Tensor): Labels (N,).
        tail_weight (Tensor): T of each class (C,), 1 for tail classes and 0
            for the others.
        random (Tensor): u, in [0, 1) (N, C).

    Returns:
        Tensor: (N, C), of the type of ``tail_weight``.

    Examples:
        >>> labels = torch.tensor([0, 2])  # dog, background
        >>> random = torch.full((2, 2), 0.5)
        >>> drop_weight(labels, torch.tensor([0.0, 1.0]), random)
        tensor([[1., 0.],
                [1., 0.]])
    """
    T = tail_weight
    is_foreground = labels < len(T)  # (N,)
    # 0 / 0 is nan, and no u is above it.
    rho = F.pad(T, (0, 1))[labels].sum() / is_foreground.sum()
    d = is_foreground.unsqueeze(1) | (random > rho)  # (N, C)
    w = 1 - d * T
    keep_positives(w, labels)
    return w


@MODELS.register_module()
class DropLoss(TailLoss):
    """DropLoss for RoI heads; C sigmoid channels, no background.

    As in :class:`EqualizationLoss`, boxes of other classes do not push tail
    classes down. Here background, too, does so only in a share of the terms,
    drawn anew in each batch: the share of tail classes among its boxes.

    The random numbers are those of the process, in single precision: for one
    random state the loss is the published one, with prior_prob=None.

    Args:
        frequency_threshold (float, optional): lambda, as in
            :class:`EqualizationLoss`; the published code has 1.77e-3 for LVIS
            v0.5 and 1.1e-3 for v1. 0 is plain sigmoid cross-entropy.
        tail_ratio (float): As in :class:`EqualizationLoss`.
        prior_prob (float, optional): Probability of a zero logit, between 0
            and 1; None adds no constant. Defaults to 0.001.

    Examples:
        >>> from mmdet_longtail.structures import ClassStatistics
        >>> statistics = ClassStatistics(
        ...     ('dog', 'ibex'), [90, 2], [120, 3], 100, 91
        ... )
        >>> loss = DropLoss(num_classes=2, tail_ratio=0.1)
        >>> loss.set_class_statistics(statistics)
        >>> loss(torch.zeros(1, 2), torch.tensor([0]))
        tensor(6.9078)
    """

    column_blocks: tuple[ColumnBlock, ...] = ('sigmoids',)
    explanation = (
        'one yes-or-no question per class. A box of another class no longer '
        'pushes the classes down that are in few training images, and '
        'background does so only now and then.'
    )
    plain = 'sigmoid cross-entropy'

    def __init__(
        self, *args: Any, prior_prob: float | None = 0.001, **settings: Any
    ) -> None:
        super().__init__(*args, **settings)
        self.set_prior_prob(prior_prob)

    def sample_weight(self, labels: Tensor) -> Tensor:
        """Compute :func:`drop_weight` of a random draw."""
        T = self.tail_weight
        random = torch.rand(
            len(labels), len(T), dtype=torch.float32, device=labels.device
        )
        return drop_weight(labels, T, random)

    def row_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute sigmoid cross-entropy with the weights of a random draw."""
        w = self.sample_weight(labels).to(logits)
        return WeightedSigmoidCrossEntropy.apply(
            logits, labels, w, self.prior_logit
        )

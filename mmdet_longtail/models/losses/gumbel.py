"""Gumbel activation in the place of the sigmoid, for EQL and DropLoss.

Alexandridis et al., Long-Tailed Instance Segmentation Using Gumbel Optimized
Loss, ECCV 2022, https://arxiv.org/abs/2207.10936, and its code.

Shapes: N RoIs, C classes. Labels: 0..C-1 foreground, C background.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor

from mmdet_longtail.models.losses.base import ColumnBlock, LongTailLoss
from mmdet_longtail.models.losses.drop import DropLoss
from mmdet_longtail.models.losses.equalization import (
    EqualizationLoss,
    equalization_weight,
)
from mmdet_longtail.models.losses.sigmoid import WeightedCrossEntropy
from mmdet_longtail.utils.checks import check_numbers

LOGIT_RANGE = (-4.0, 10.0)
"""Range of the published code, outside of which a logit has no gradient."""

PRIOR_PROB = math.exp(-math.exp(2.0))
"""Probability of the released code's bias, -2: 6.2e-4."""


class WeightedGumbelCrossEntropy(WeightedCrossEntropy):
    r"""Cross-entropy of the Gumbel activation with a weight per class.

    See :func:`gumbel_cross_entropy`. With x_j = -log p_j = e^{-z_j}, the
    gradient is -w_j x_j where y_j = 1, w_j x_j / (e^{x_j} - 1) elsewhere.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        labels: Tensor,
        weights: Tensor,
        prior_logit: float,
    ) -> Tensor:
        z = logits + prior_logit
        is_inside = (z >= LOGIT_RANGE[0]) & (z <= LOGIT_RANGE[1])
        x = z.clamp_(*LOGIT_RANGE).neg_().exp_()  # -log p
        loss = torch.expm1(-x).neg_().log_().neg_()  # -log(1 - p)
        gradient = x / torch.expm1(x)

        is_foreground = (labels < logits.size(1)).unsqueeze(1)  # (N, 1)
        column = labels.clamp(max=logits.size(1) - 1).unsqueeze(1)
        true = x.gather(1, column)
        for matrix, positive in ((loss, true), (gradient, -true)):
            negative = matrix.gather(1, column)
            value = torch.where(is_foreground, positive, negative)
            matrix.scatter_(1, column, value).mul_(weights)
        ctx.save_for_backward(gradient.mul_(is_inside))
        return loss.sum(1)


def gumbel_cross_entropy(
    logits: Tensor, labels: Tensor, weight: Tensor, prior_logit: float = 0.0
) -> Tensor:
    r"""Compute cross-entropy of the Gumbel activation, weighted by class.

    .. math::
        L = -\sum_j w_j \log \hat p_j, \qquad p_j = e^{-e^{-z_j}}

    with p^_j = p_j where y_j = 1 and 1 - p_j elsewhere, and z clamped to
    [-4, 10]. The published code has the gradient of
    ``F.binary_cross_entropy``, which vanishes for p_j below 1e-12, where z_j
    is below -3.3. Here it is that of the equation.

    Args:
        logits (Tensor): Raw scores (N, C).
        labels (Tensor): Labels (N,).
        weight (Tensor): w (N, C).
        prior_logit (float): Constant added to the logits. Defaults to 0.0.

    Returns:
        Tensor: Loss of each row (N,), summed over the classes.

    Examples:
        >>> gumbel_cross_entropy(
        ...     torch.zeros(1, 2), torch.tensor([0]), torch.ones(1, 2)
        ... )
        tensor([1.4587])
    """
    return WeightedGumbelCrossEntropy.apply(
        logits, labels, weight, prior_logit
    )


class GumbelActivation(LongTailLoss):
    """Mixin of the losses whose probability is exp(-exp(-z))."""

    column_blocks: tuple[ColumnBlock, ...] = ('gumbels',)
    plain = 'cross-entropy of the Gumbel activation'

    def __init__(
        self,
        *args: Any,
        prior_prob: float | None = PRIOR_PROB,
        **settings: Any,
    ) -> None:
        settings['prior_prob'] = prior_prob  # of the loss it is mixed into
        super().__init__(*args, **settings)

    def set_prior_prob(self, prior_prob: float | None) -> None:
        """Add the logit of a probability to the scores; None adds nothing.

        Raises:
            LongTailError: If prior_prob lies outside (0, 1).
        """
        if prior_prob is not None:
            check_numbers(type(self).__name__, '(0, 1)', prior_prob=prior_prob)
            self.prior_logit = -math.log(-math.log(prior_prob))

    def probs(self, logits: Tensor) -> Tensor:
        """Compute probabilities (N, C + 1); background's is 0."""
        p = torch.exp(-torch.exp(-(logits + self.prior_logit)))
        return F.pad(p, (0, 1))


@MODELS.register_module()
class GumbelDropLoss(GumbelActivation, DropLoss):
    """DropLoss with the Gumbel activation (GOL), for RoI heads; C channels.

    Scores are not clamped at test. In training a logit outside [-4, 10] has
    no gradient.

    Args:
        frequency_threshold (float, optional): As in :class:`DropLoss`.
        tail_ratio (float): As there.
        prior_prob (float, optional): Probability exp(-exp(-z)) of a zero
            logit, between 0 and 1; None adds no constant. Defaults to
            exp(-exp(2)), 6.2e-4, which is the bias -2 of the released code.

    Examples:
        >>> from mmdet_longtail.structures import ClassStatistics
        >>> statistics = ClassStatistics(
        ...     ('dog', 'ibex'), [90, 2], [120, 3], 100, 91
        ... )
        >>> loss = GumbelDropLoss(num_classes=2, tail_ratio=0.1)
        >>> loss.set_class_statistics(statistics)
        >>> loss(torch.zeros(1, 2), torch.tensor([0]))
        tensor(7.3891)
    """

    def row_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute :func:`gumbel_cross_entropy` with DropLoss's weights."""
        w = self.sample_weight(labels).to(logits)
        return gumbel_cross_entropy(logits, labels, w, self.prior_logit)


@MODELS.register_module()
class GumbelEqualizationLoss(GumbelActivation, EqualizationLoss):
    """EQL with the Gumbel activation, for RoI heads; C channels.

    Args:
        prior_prob (float, optional): As in :class:`GumbelDropLoss`.
        **settings: The other arguments of :class:`EqualizationLoss`.

    Examples:
        >>> from mmdet_longtail.structures import ClassStatistics
        >>> statistics = ClassStatistics(
        ...     ('dog', 'ibex'), [90, 2], [120, 3], 100, 91
        ... )
        >>> loss = GumbelEqualizationLoss(num_classes=2, tail_ratio=0.1)
        >>> loss.set_class_statistics(statistics)
        >>> loss(torch.zeros(1, 2), torch.tensor([0]))
        tensor(7.3891)
    """

    def row_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute :func:`gumbel_cross_entropy` with EQL's weights."""
        w = equalization_weight(
            labels,
            self.tail_weight.to(logits),
            self.exclude_background,
            self.verified_classes,
        )
        return gumbel_cross_entropy(logits, labels, w, self.prior_logit)

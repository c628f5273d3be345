"""Equalization Loss v2 (EQLv2).

Tan et al., Equalization Loss v2: A New Gradient Balance Approach for
Long-Tailed Object Detection, CVPR 2021, https://arxiv.org/abs/2012.08548

Shapes: N RoIs, C classes. Column C is background, a sigmoid of its own.
Labels: 0..C-1 foreground, C background.
"""

import torch
from mmdet.registry import MODELS
from torch import Tensor

from mmdet_longtail.models.losses.base import LongTailLoss
from mmdet_longtail.models.losses.online_state import OnlineState
from mmdet_longtail.models.losses.sigmoid import WeightedSigmoidCrossEntropy
from mmdet_longtail.utils.checks import check_numbers


def equalization_v2_weights(
    gradient_ratio: Tensor, gamma: float, mu: float, alpha: float
) -> tuple[Tensor, Tensor]:
    r"""Compute the weights of positives and of negatives.

    .. math::
        r_j = f(g_j), \qquad q_j = 1 + \alpha (1 - f(g_j)), \qquad
        f(x) = \frac{1}{1 + e^{-\gamma (x - \mu)}}

    Args:
        gradient_ratio (Tensor): g, positive by negative gradients of each
            class (C,).
        gamma (float): Slope of f.
        mu (float): Where f is 1/2.
        alpha (float): Largest addition to the weight of positives.

    Returns:
        tuple[Tensor, Tensor]: q of positives and r of negatives, (C + 1,)
        each; both are 1 for background.

    Examples:
        >>> ratio = torch.tensor([0.8])
        >>> equalization_v2_weights(ratio, gamma=12, mu=0.8, alpha=4)
        (tensor([3., 1.]), tensor([0.5000, 1.0000]))
    """
    r = torch.sigmoid(gamma * (gradient_ratio - mu))
    r = torch.cat([r, r.new_ones(1)])
    return 1 + alpha * (1 - r), r


def equalization_v2_loss(
    logits: Tensor,
    labels: Tensor,
    pos_weight: Tensor,
    neg_weight: Tensor,
    prior_logit: float = 0.0,
) -> Tensor:
    r"""Compute sigmoid cross-entropy of weighted positives and negatives.

    .. math::
        L = -\sum_j q_j y_j \log p_j + r_j (1 - y_j) \log (1 - p_j)

    Args:
        logits (Tensor): Raw scores z (N, C + 1).
        labels (Tensor): Labels (N,), which are columns.
        pos_weight (Tensor): q of each column (C + 1,).
        neg_weight (Tensor): r of each column (C + 1,).
        prior_logit (float): Constant added to the logits. Defaults to 0.0.

    Returns:
        Tensor: Loss of each row (N,), summed over the columns.

    Examples:
        >>> equalization_v2_loss(
        ...     torch.zeros(1, 2),
        ...     torch.tensor([0]),
        ...     pos_weight=torch.tensor([3.0, 1.0]),
        ...     neg_weight=torch.tensor([0.5, 1.0]),
        ... )
        tensor([2.7726])
    """
    y = labels.unsqueeze(1)  # (N, 1), of the only positive
    w = neg_weight.to(logits).repeat(len(logits), 1)  # (N, C + 1)
    w.scatter_(1, y, pos_weight.to(logits)[y])
    return WeightedSigmoidCrossEntropy.apply(logits, labels, w, prior_logit)


def equalization_v2_gradients(
    logits: Tensor,
    labels: Tensor,
    pos_weight: Tensor,
    neg_weight: Tensor,
    prior_logit: float = 0.0,
    label_weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Compute the gradients' sums over the rows.

    .. math::
        G^+_j = \sum_i q_j y_{ij} |p_{ij} - 1|, \qquad
        G^-_j = \sum_i r_j (1 - y_{ij}) |p_{ij}|

    The arguments are those of :func:`equalization_v2_loss`, and the weight
    of each row (N,).

    Returns:
        tuple[Tensor, Tensor]: G+ and G- of each column, (C + 1,) each.

    Examples:
        >>> equalization_v2_gradients(
        ...     torch.zeros(1, 2),
        ...     torch.tensor([0]),
        ...     pos_weight=torch.tensor([3.0, 1.0]),
        ...     neg_weight=torch.tensor([0.5, 1.0]),
        ... )
        (tensor([1.5000, 0.0000]), tensor([0.0000, 0.5000]))
    """
    y = labels.unsqueeze(1)  # (N, 1)
    z = logits + prior_logit
    v = logits.new_ones(len(labels))  # (N,)
    if label_weights is not None:
        v = label_weights.to(logits)
    missing = v * z.gather(1, y).squeeze(1).neg().sigmoid()  # 1 - p
    total = logits.new_zeros(logits.size(1)).index_add(0, labels, missing)
    p = z.sigmoid().scatter(1, y, 0.0)  # of negatives
    negative = (v.unsqueeze(1) * p).sum(0)
    return pos_weight.to(logits) * total, neg_weight.to(logits) * negative


@MODELS.register_module()
class EqualizationLossV2(OnlineState, LongTailLoss):
    """Equalization Loss v2 for RoI heads; C + 1 sigmoid channels.

    It needs no class statistics: the weights follow from the gradients of
    all iterations so far, in the buffers ``pos_grad`` and ``neg_grad``, and
    their ratio ``pos_neg``, which begins at 100. The last channel separates
    background from objects, and p_c (1 - p_background) is the probability of
    a class.

    The authors' code divides by the number of rows, and ignores label
    weights and avg_factor. Here label weights apply to the loss and to the
    gradients. mmdet's EQLV2Loss has the same channels and buffers, but in
    mmdet 3.x a detector tests it with a softmax.

    Args:
        gamma (float): Slope of the weights over the ratio, at least 0.
            Defaults to 12.
        mu (float): Ratio of a weight of 1/2. Defaults to 0.8.
        alpha (float): Largest addition to the weight of positives, at least
            0. Defaults to 4.0.
        prior_prob (float, optional): Probability of a zero logit, between 0
            and 1; None adds no constant. The authors' code has it in the bias
            of all C + 1 channels. Defaults to 0.001.

    Examples:
        >>> loss = EqualizationLossV2(num_classes=2, prior_prob=None)
        >>> loss(torch.zeros(1, 3), torch.tensor([0]))
        tensor(2.0794)
        >>> loss.neg_grad
        tensor([0.0000, 0.5000], dtype=torch.float64)
    """

    column_blocks = ('sigmoids', 'background_sigmoid')
    needs_class_statistics = False
    explanation = (
        'one yes-or-no question per class. Classes that were pushed down more '
        'than up so far in training are pushed down less, and up more.'
    )

    pos_grad: Tensor
    neg_grad: Tensor
    pos_neg: Tensor

    def __init__(
        self,
        num_classes: int,
        gamma: float = 12,
        mu: float = 0.8,
        alpha: float = 4.0,
        prior_prob: float | None = 0.001,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(num_classes, loss_weight)
        name = type(self).__name__
        check_numbers(name, '[0, inf)', gamma=gamma, mu=mu, alpha=alpha)
        self.gamma = gamma
        self.mu = mu
        self.alpha = alpha
        self.set_prior_prob(prior_prob)
        self.add_online_state(
            2, num_classes, pos_grad=0.0, neg_grad=0.0, pos_neg=100.0
        )

    def advance(
        self, state: dict[str, Tensor], *sums: Tensor
    ) -> dict[str, Tensor]:
        """Add up the gradients of the classes, and compute their ratio."""
        pos_grad = state['pos_grad'] + sums[0]
        neg_grad = state['neg_grad'] + sums[1]
        # No rank has had a RoI yet where both are 0.
        ratio = pos_grad / (neg_grad + 1e-10)
        pos_neg = torch.where(pos_grad + neg_grad > 0, ratio, state['pos_neg'])
        return dict(pos_grad=pos_grad, neg_grad=neg_grad, pos_neg=pos_neg)

    def weights(self) -> tuple[Tensor, Tensor]:
        """Compute the weights of positives and negatives, (C + 1,) each."""
        return equalization_v2_weights(
            self.pos_neg, self.gamma, self.mu, self.alpha
        )

    def row_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute :func:`equalization_v2_loss`."""
        return equalization_v2_loss(
            logits, labels, *self.weights(), self.prior_logit
        )

    def forward(
        self,
        cls_score: Tensor,
        labels: Tensor,
        label_weights: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
    ) -> Tensor | dict[str, Tensor]:
        """Compute the loss, and then add the gradients to the buffers."""
        loss = super().forward(
            cls_score, labels, label_weights, avg_factor, reduction_override
        )
        if self.training:
            gradients = equalization_v2_gradients(
                self.prepare(cls_score.detach()),
                labels,
                *self.weights(),
                self.prior_logit,
                label_weights,
            )
            self.observe(*(each[:-1] for each in gradients))
        return loss

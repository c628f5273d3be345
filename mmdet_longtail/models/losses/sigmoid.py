"""Sigmoid losses of RoI heads: cross-entropy, prior and probabilities.

Shapes: N RoIs, C classes. Labels: 0..C-1 foreground, C background.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.utils.checks import check_numbers


class _WeightedSigmoidCrossEntropy(torch.autograd.Function):
    """Fast form of :func:`weighted_sigmoid_cross_entropy`.

    It keeps one (N, C) tensor for backward, the gradient w_j (p_j - y_j);
    ``F.binary_cross_entropy_with_logits`` with weights keeps four and needs
    more than twice the time. ``create_graph=True`` raises an error.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        labels: Tensor,
        weights: Tensor,
        prior_logit: float,
    ) -> Tensor:
        is_foreground = (labels < logits.size(1)).unsqueeze(1)  # (N, 1)
        column = labels.clamp(max=logits.size(1) - 1).unsqueeze(1)
        # BCE(z, 1) = softplus(-z) and BCE(z, 0) = softplus(z); exact for
        # any size of z, where softplus(z) - y z would cancel.
        sign = torch.where(is_foreground, -1.0, 1.0).to(logits)
        signed = sign * (logits.gather(1, column) + prior_logit)

        z = logits + prior_logit
        loss = torch.logaddexp(z, z.new_zeros(()), out=z)  # softplus(z)
        loss.scatter_(1, column, F.softplus(signed)).mul_(weights)
        loss_sum = loss.sum(1)
        del z, loss

        gradient = (logits + prior_logit).sigmoid_()
        gradient.scatter_(1, column, sign * signed.sigmoid()).mul_(weights)
        ctx.save_for_backward(gradient)
        return loss_sum

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise LongTailError(
                'sigmoid cross-entropy has no second derivative here: call '
                'backward without create_graph=True'
            )
        (gradient,) = ctx.saved_tensors
        return gradient * grad_output.unsqueeze(1), None, None, None


def weighted_sigmoid_cross_entropy(
    logits: Tensor, labels: Tensor, weights: Tensor, prior_logit: float = 0.0
) -> Tensor:
    r"""Compute sigmoid cross-entropy with a weight per row and class.

    .. math::
        L = -\sum_j w_j \log \hat p_j

    with p^_j = sigmoid(z_j) where y_j = 1 and 1 - sigmoid(z_j) elsewhere.

    Args:
        logits (Tensor): Raw scores (N, C); z is the sum with the prior.
        labels (Tensor): Labels (N,).
        weights (Tensor): w (N, C).
        prior_logit (float): Constant added to the logits. Defaults to 0.0.

    Returns:
        Tensor: Loss of each row (N,), differentiable once.
    """
    return _WeightedSigmoidCrossEntropy.apply(
        logits, labels, weights, prior_logit
    )


def prior_logit_of(owner: object, prior_prob: float | None) -> float:
    """Return the logit of a probability of a loss, 0 for None.

    Raises:
        LongTailError: If prior_prob lies outside (0, 1).
    """
    if prior_prob is None:
        return 0.0
    check_numbers(type(owner).__name__, '(0, 1)', prior_prob=prior_prob)
    return math.log(prior_prob / (1 - prior_prob))


def sigmoid_probs(logits: Tensor, prior_logit: float) -> Tensor:
    """Compute sigmoids (N, C + 1) of logits (N, C), with a background of 0."""
    return F.pad((logits + prior_logit).sigmoid_(), (0, 1))

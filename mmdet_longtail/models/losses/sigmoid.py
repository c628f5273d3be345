"""Sigmoid cross-entropy with a weight per row and class.

Shapes: N RoIs, C classes. Labels: 0..C-1 foreground, C background.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdet_longtail.errors import LongTailError


class WeightedCrossEntropy(torch.autograd.Function):
    """Base class of cross-entropies that keep their gradient for backward.

    The arguments of ``apply`` are those of ``forward``: raw scores (N, C),
    labels (N,), weights w (N, C) or (C,) and the constant ``prior_logit`` that
    is added to the scores. The result is the loss of each row (N,),
    differentiable once.

    One (N, C) tensor is kept, the gradient; PyTorch's cross-entropies with
    weights keep four, and need more than twice the time.
    ``create_graph=True`` raises an error.
    """

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise LongTailError(
                'the loss has no second derivative here: call backward '
                'without create_graph=True'
            )
        (gradient,) = ctx.saved_tensors
        return gradient * grad_output.unsqueeze(1), None, None, None


class WeightedSigmoidCrossEntropy(WeightedCrossEntropy):
    r"""Sigmoid cross-entropy with a weight per row and class.

    .. math::
        L = -\sum_j w_j \log \hat p_j

    with p^_j = sigmoid(z_j) where y_j = 1 and 1 - sigmoid(z_j) elsewhere. z
    is the sum of the raw scores and ``prior_logit``. The gradient is w_j (p_j
    - y_j).
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

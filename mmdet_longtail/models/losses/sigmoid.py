"""What the sigmoid losses of RoI heads share: a prior, and no background.

Shapes: N RoIs, C classes.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from mmdet_longtail.errors import LongTailError


def prior_logit_of(owner: object, prior_prob: float | None) -> float:
    """Give the constant that makes a zero logit stand for a probability.

    Args:
        owner (object): The loss, for the message.
        prior_prob (float, optional): Between 0 and 1; None gives 0.

    Raises:
        LongTailError: If prior_prob is out of its range.
    """
    if prior_prob is None:
        return 0.0
    if not 0 < prior_prob < 1:
        raise LongTailError(
            f'{type(owner).__name__}: prior_prob is {prior_prob}, expected a '
            'probability between 0 and 1'
        )
    return math.log(prior_prob / (1 - prior_prob))


def sigmoid_probs(logits: Tensor, prior_logit: float) -> Tensor:
    """Sigmoids with a background column of zeros (N, C + 1).

    Args:
        logits (Tensor): Raw scores (N, C).
        prior_logit (float): Constant added to them.
    """
    return F.pad((logits + prior_logit).sigmoid_(), (0, 1))

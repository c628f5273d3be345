"""Equilibrium Loss (EBL) of LOCE.

Feng et al., Exploring Classification Equilibrium in Long-Tailed Object
Detection, ICCV 2021, https://arxiv.org/abs/2108.07507

Shapes: N RoIs, C classes. Labels: 0..C-1 foreground, C background.
"""

import torch
from mmdet.registry import MODELS
from torch import Tensor

from mmdet_longtail.models.losses.balanced_softmax import (
    balanced_softmax_loss,
)
from mmdet_longtail.models.losses.base import LongTailLoss
from mmdet_longtail.models.losses.online_state import OnlineState
from mmdet_longtail.utils.checks import check_numbers


@MODELS.register_module()
class EquilibriumLoss(OnlineState, LongTailLoss):
    r"""Equilibrium Loss for RoI heads; C + 1 channels.

    .. math::
        L = -\log \frac{s_y e^{z_y}}{\sum_j s_j e^{z_j}}, \qquad
        s_c \leftarrow m s_c + (1 - m) \bar p_c

    with p-bar the mean probability, by a softmax without weights, of class c
    on its own RoIs in the iteration. The scores s are the buffer
    ``mean_score``. They are updated in training only, before the loss, where
    there are RoIs of the class. Background has a constant score. The
    prediction is a softmax without weights.

    The authors' code averages first over the RoIs of each object, which a
    loss does not know, and takes the power of m by the number of objects.
    The other half of LOCE, a memory of features, is not here.

    Args:
        momentum (float): m, 0..1. Defaults to 0.9.
        initial_score (float): Score of a class without RoIs so far, in
            (0, 1]. Defaults to 0.01.
        background_score (float): Score of background, in (0, 1]. Defaults to
            0.01.

    Examples:
        >>> loss = EquilibriumLoss(num_classes=2)
        >>> loss(torch.zeros(1, 3), torch.tensor([0]))
        tensor(0.3869)
        >>> loss.mean_score
        tensor([0.0423, 0.0100, 0.0100], dtype=torch.float64)
    """

    needs_class_statistics = False
    explanation = (
        'one choice among all classes, where a class whose own boxes score '
        'low so far in training gets an easier start.'
    )

    mean_score: Tensor

    def __init__(
        self,
        num_classes: int,
        momentum: float = 0.9,
        initial_score: float = 0.01,
        background_score: float = 0.01,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(num_classes, loss_weight)
        name = type(self).__name__
        check_numbers(name, '[0, 1]', momentum=momentum)
        check_numbers(
            name,
            '(0, 1]',
            initial_score=initial_score,
            background_score=background_score,
        )
        self.momentum = momentum
        self.add_online_state(2, num_classes + 1, mean_score=initial_score)
        self.mean_score[-1] = background_score

    def advance(
        self, state: dict[str, Tensor], *sums: Tensor
    ) -> dict[str, Tensor]:
        """Move the scores towards the mean of the rows of each class."""
        score, (total, number) = state['mean_score'], sums
        mean = total / number.clamp(min=1)
        moved = self.momentum * score + (1 - self.momentum) * mean
        # Probabilities can underflow to 0, whose logarithm is infinite.
        moved = moved.clamp(min=torch.finfo(torch.float32).tiny)
        is_moved = number > 0
        is_moved[-1] = False  # background
        return dict(mean_score=torch.where(is_moved, moved, score))

    def row_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Update the scores, and compute :func:`balanced_softmax_loss`."""
        p = logits.detach().softmax(1).gather(1, labels.unsqueeze(1))
        zeros = logits.new_zeros(len(self.mean_score))
        self.observe(
            zeros.index_add(0, labels, p.squeeze(1)),
            zeros.index_add(0, labels, torch.ones_like(p.squeeze(1))),
        )
        return balanced_softmax_loss(logits, labels, self.mean_score)

"""Focal Loss in RoI heads.

Lin et al., Focal Loss for Dense Object Detection, ICCV 2017,
https://arxiv.org/abs/1708.02002

Shapes: N RoIs, C classes. Labels: 0..C-1 foreground, C background.
"""

import torch.nn.functional as F
from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss
from mmdet.registry import MODELS
from torch import Tensor

from mmdet_longtail.models.losses.base import LongTailLoss
from mmdet_longtail.utils.checks import check_numbers


@MODELS.register_module()
class RoIFocalLoss(LongTailLoss):
    r"""Sigmoid focal loss for RoI heads; C channels, no background.

    .. math::
        L = -\sum_j \alpha_j (1 - \hat p_j)^\gamma \log \hat p_j

    with p^_j = p_j and alpha where y_j = 1, 1 - p_j and 1 - alpha elsewhere.
    The sum is divided by the number of RoIs, as all losses of RoI heads are;
    the paper, on a dense head, divides it by the number of positives.
    mmdet's FocalLoss in a RoI head predicts with a softmax and a background
    column that it has not trained; here the sigmoids are the scores.

    Args:
        gamma (float): Focus on hard examples, 0 or at least 1: between them
            the gradient of a perfect score is not finite. Defaults to 2.0.
        alpha (float): Weight of positives, 0..1. Defaults to 0.25.
        prior_prob (float, optional): Probability of a zero logit, in (0, 1).
            None adds nothing to the logits.
            Defaults to 0.01, the paper's.

    Examples:
        >>> import torch
        >>> loss = RoIFocalLoss(num_classes=2, prior_prob=None)
        >>> loss(torch.zeros(1, 2), torch.tensor([0]))
        tensor(0.1733)
    """

    column_blocks = ('sigmoids',)
    needs_class_statistics = False
    explanation = (
        'one yes-or-no question per class; boxes that are already answered '
        'well hardly count.'
    )

    def __init__(
        self,
        num_classes: int,
        gamma: float = 2.0,
        alpha: float = 0.25,
        prior_prob: float | None = 0.01,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(num_classes, loss_weight)
        name = type(self).__name__
        if gamma != 0:
            check_numbers(name, '[1, inf)', gamma=gamma)
        check_numbers(name, '[0, 1]', alpha=alpha)
        self.gamma = gamma
        self.alpha = alpha
        self.set_prior_prob(prior_prob)

    def row_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the formula of the class, by mmdet's function."""
        z = logits + self.prior_logit
        y = F.one_hot(labels, self.num_classes + 1)[:, :-1]
        return py_sigmoid_focal_loss(
            z, y, gamma=self.gamma, alpha=self.alpha, reduction='none'
        ).sum(1)

"""Focal Loss in RoI heads.

Lin et al., Focal Loss for Dense Object Detection, ICCV 2017,
https://arxiv.org/abs/1708.02002

Shapes: N RoIs, C classes. Labels: 0..C-1 foreground, C background.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss
from mmdet.registry import MODELS
from torch import Tensor

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.losses.base import LongTailLoss
from mmdet_longtail.models.losses.sigmoid import prior_logit_of, sigmoid_probs
from mmdet_longtail.structures.class_statistics import ClassStatistics


@MODELS.register_module()
class RoIFocalLoss(LongTailLoss):
    r"""Sigmoid focal loss for RoI heads; C channels, no background.

    .. math::
        L = -\sum_j \alpha_j (1 - \hat p_j)^\gamma \log \hat p_j

    with p^_j = p_j and alpha where y_j = 1, 1 - p_j and 1 - alpha elsewhere.
    mmdet's FocalLoss in a RoI head is tested with a softmax and a background
    column that it has not trained; here the sigmoids are the scores.

    Args:
        num_classes (int): Number of foreground classes, C.
        gamma (float): Focus on hard examples, 0 or at least 1. Defaults to
            2.0.
        alpha (float): Weight of positives, 0..1. Defaults to 0.25.
        prior_prob (float): Probability that a zero logit stands for, between
            0 and 1. Defaults to 0.01, the paper's.
        loss_weight (float): Factor of the loss. Defaults to 1.0.

    Raises:
        LongTailError: If a value lies outside its range.
    """

    def __init__(
        self,
        num_classes: int,
        gamma: float = 2.0,
        alpha: float = 0.25,
        prior_prob: float = 0.01,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(num_classes, loss_weight)
        if not (gamma == 0 or 1 <= gamma < math.inf):
            raise LongTailError(
                f'RoIFocalLoss: gamma is {gamma}, expected 0 or a number from '
                '1 on: between them the gradient of a perfect score is not '
                'finite'
            )
        if not 0 <= alpha <= 1:
            raise LongTailError(
                f'RoIFocalLoss: alpha is {alpha}, expected a weight between 0 '
                'and 1'
            )
        self.gamma = gamma
        self.alpha = alpha
        self.prior_logit = prior_logit_of(self, prior_prob)

    def get_cls_channels(self, num_classes: int) -> int:
        """One sigmoid a class."""
        return num_classes

    def derive(self, statistics: ClassStatistics) -> None:
        """Focal loss does not ask how often a class occurs."""

    def row_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The formula of the class, by mmdet's function."""
        z = logits + self.prior_logit
        y = F.one_hot(labels, self.num_classes + 1)[:, :-1]
        return py_sigmoid_focal_loss(
            z, y, gamma=self.gamma, alpha=self.alpha, reduction='none'
        ).sum(1)

    def get_activation(self, cls_score: Tensor) -> Tensor:
        """Sigmoids (N, C + 1); the background column is zero.

        Args:
            cls_score (Tensor): Raw scores (N, C).
        """
        return sigmoid_probs(self.prepare(cls_score), self.prior_logit)

    def extra_repr(self) -> str:
        """Show the settings where PyTorch prints the module."""
        return (
            f'{super().extra_repr()}, gamma={self.gamma}, alpha={self.alpha}, '
            f'prior_logit={self.prior_logit:.4g}'
        )

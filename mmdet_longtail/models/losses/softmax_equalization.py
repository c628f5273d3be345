"""Softmax Equalization Loss (SEQL).

Tan et al., Equalization Loss for Long-Tailed Object Recognition, CVPR 2020,
https://arxiv.org/abs/2003.05176, section 3.3

Shapes: N rows, C classes, D columns. Labels: 0..C-1 classes, C background.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor

from mmdet_longtail.models.losses.equalization import TailLoss
from mmdet_longtail.utils.checks import check_numbers


def sample_ignored(
    labels: Tensor, tail_weight: Tensor, ignore_probability: float
) -> Tensor:
    """Draw the columns that leave the softmax of each row.

    Their w~_k = 1 - beta T(f_k) (1 - y_k) is 0 (Eq. 11); beta is 1 with
    probability gamma, drawn per row and class. The true class stays.

    Args:
        labels (Tensor): The true column of each row (N,).
        tail_weight (Tensor): T(f) of each column (D,), 1 for tail classes
            and 0 for the others and background.
        ignore_probability (float): gamma, 0..1.

    Returns:
        Tensor: Bool (N, D).
    """
    shape = (len(labels), len(tail_weight))
    # A draw below gamma T is one of beta = 1 where T = 1; gamma = 1 is always.
    draw = torch.rand(shape, device=labels.device)
    beta = draw < ignore_probability * tail_weight
    return beta.scatter(1, labels.unsqueeze(1), False)


def softmax_equalization_loss(
    logits: Tensor, labels: Tensor, is_ignored: Tensor
) -> Tensor:
    r"""Compute softmax cross-entropy without the ignored columns.

    .. math::
        L = -\log \tilde p_y, \qquad
        \tilde p_j = \frac{e^{z_j}}{\sum_k \tilde w_k e^{z_k}}

    (Eq. 9 and 10) with w~_k = 0 for ignored columns and 1 for the rest.

    Args:
        logits (Tensor): Raw scores z (N, D).
        labels (Tensor): The true column of each row (N,), never ignored.
        is_ignored (Tensor): Bool (N, D).

    Returns:
        Tensor: Loss of each row (N,).
    """
    # The lowest finite number: exp(z - max z) is 0, and there is no -inf.
    lowest = torch.finfo(logits.dtype).min
    z = logits.masked_fill(is_ignored, lowest)
    return F.cross_entropy(z, labels, reduction='none')


@MODELS.register_module()
class SoftmaxEqualizationLoss(TailLoss):
    """Softmax Equalization Loss for RoI heads; C + 1 channels.

    The paper has SEQL for image classification, without background. Here
    background is the last column and follows the paper's sigmoid loss:
    background is no tail class, so no row ignores it. A background RoI
    ignores no class (E(r) = 0), as tail classes would have no negatives
    otherwise.

    Args:
        frequency_threshold (float, optional): lambda, as in
            :class:`EqualizationLoss`; 0 is plain softmax cross-entropy.
        tail_ratio (float): As in :class:`EqualizationLoss`.
        ignore_probability (float): gamma, 0..1, the probability that a tail
            class leaves a row's softmax; 0 is plain softmax cross-entropy.
            Defaults to 0.95; the paper's Tables 7 and 9 are best at 0.9 to
            0.95.
    """

    explanation = (
        'one choice among all classes, from which the classes that are in few '
        'training images are mostly left out when the box is of another class.'
    )
    plain = 'softmax cross-entropy'

    def __init__(
        self, *args: Any, ignore_probability: float = 0.95, **settings: Any
    ) -> None:
        super().__init__(*args, **settings)
        name = type(self).__name__
        check_numbers(name, '[0, 1]', ignore_probability=ignore_probability)
        self.ignore_probability = ignore_probability

    def row_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute :func:`softmax_equalization_loss` of a random draw."""
        T = F.pad(self.tail_weight, (0, logits.size(1) - self.num_classes))
        is_ignored = sample_ignored(labels, T, self.ignore_probability)
        E = (labels < self.num_classes).unsqueeze(1)  # (N, 1)
        return softmax_equalization_loss(logits, labels, is_ignored & E)


@MODELS.register_module()
class SoftmaxEqualizationClassificationLoss(SoftmaxEqualizationLoss):
    """Softmax Equalization Loss as the paper has it; C channels.

    It is for heads of image classifiers, which have no background and apply
    their own softmax. The arguments are those of the base class.
    """

    column_blocks = ('classes',)
    custom_cls_channels = False
    custom_activation = False
    custom_accuracy = False

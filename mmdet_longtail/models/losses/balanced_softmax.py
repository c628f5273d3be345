"""Balanced Softmax.

Ren et al., Balanced Meta-Softmax for Long-Tailed Visual Recognition, NeurIPS
2020, https://arxiv.org/abs/2007.10740

Shapes: N RoIs, C classes. Labels: 0..C-1 foreground, C background.
"""

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor

from mmdet_longtail.models.losses.base import LongTailLoss
from mmdet_longtail.structures.class_statistics import ClassStatistics


def balanced_softmax_loss(
    logits: Tensor, labels: Tensor, column_weight: Tensor
) -> Tensor:
    r"""Compute cross-entropy of a softmax with weighted exponentials.

    .. math::
        L = -\log \frac{s_y e^{z_y}}{\sum_j s_j e^{z_j}}

    Args:
        logits (Tensor): Raw scores z (N, D).
        labels (Tensor): The true column of each row (N,).
        column_weight (Tensor): s of each column (D,), above 0.

    Returns:
        Tensor: Loss of each row (N,).

    Examples:
        >>> balanced_softmax_loss(
        ...     torch.zeros(1, 3), torch.tensor([1]), torch.tensor([7.0, 1, 2])
        ... )
        tensor([2.3026])
    """
    z = logits + column_weight.log().to(logits)
    return F.cross_entropy(z, labels, reduction='none')


@MODELS.register_module()
class BalancedSoftmaxLoss(LongTailLoss):
    """Balanced Softmax for RoI heads; C + 1 channels.

    In training, a class has the weight n / mean(n), with n its training boxes
    (1 where there are none) and the mean over the classes. The paper has no
    background. Here background has the weight 1, so that the softmax at test,
    which has no weights, keeps the observed ratio of objects to background.
    The authors' code for instance segmentation has sigmoids instead.

    Examples:
        >>> statistics = ClassStatistics(
        ...     ('dog', 'ibex'), [90, 2], [120, 3], 100, 91
        ... )
        >>> loss = BalancedSoftmaxLoss(num_classes=2)
        >>> loss.set_class_statistics(statistics)
        >>> loss(torch.zeros(1, 3), torch.tensor([1]))
        tensor(4.1190)
    """

    explanation = (
        'one choice among all classes, as if each class had equally many '
        'training boxes.'
    )

    relative_count: Tensor

    def __init__(self, num_classes: int, loss_weight: float = 1.0) -> None:
        super().__init__(num_classes, loss_weight)
        self.add_derived('relative_count', (num_classes,), torch.float64)

    def derive(self, statistics: ClassStatistics) -> dict[str, np.ndarray]:
        """Compute the weight of each class."""
        n = np.maximum(statistics.instance_count, 1)
        return {'relative_count': n / n.mean()}

    def row_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute :func:`balanced_softmax_loss`."""
        s = F.pad(self.relative_count, (0, 1), value=1.0)  # (C + 1,)
        return balanced_softmax_loss(logits, labels, s)

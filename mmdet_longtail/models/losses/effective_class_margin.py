"""Effective Class-Margin Loss (ECM).

Cho and Kraehenbuehl, Long-Tail Detection with Effective Class-Margins, ECCV
2022, https://arxiv.org/abs/2301.09724

Shapes: N RoIs, C classes. Column C is background, a sigmoid of its own.
Labels: 0..C-1 foreground, C background.
"""

import numpy as np
import torch
from mmdet.registry import MODELS
from torch import Tensor

from mmdet_longtail.models.losses.base import LongTailLoss
from mmdet_longtail.models.losses.sigmoid import WeightedSigmoidCrossEntropy
from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.utils.checks import check_numbers


def effective_class_margin_loss(
    logits: Tensor, labels: Tensor, negative_ratio: Tensor
) -> Tensor:
    r"""Compute weighted sigmoid cross-entropy with margins per column.

    .. math::
        L = -\sum_j w_j \log \hat p_j, \qquad
        p_j = \frac{e^{z_j + \delta^+_j}}
                   {e^{z_j + \delta^+_j} + e^{-z_j + \delta^-_j}}, \qquad
        \delta^\pm = \log \frac{n_+^{1/4} + n_-^{1/4}}{n_\mp^{1/4}}, \qquad
        w = a \log \frac{1 + a}{a}

    with p^_j = p_j where y_j = 1 and 1 - p_j elsewhere, n+ and n- the
    positives and negatives of a column and a = n- / n+. Since delta+ - delta-
    = -log(a) / 4, p_j is the sigmoid of 2 z_j - log(a_j) / 4.

    Args:
        logits (Tensor): Raw scores z (N, D).
        labels (Tensor): The true column of each row (N,).
        negative_ratio (Tensor): a of each column (D,), above 0.

    Returns:
        Tensor: Loss of each row (N,), summed over the columns.

    Examples:
        >>> effective_class_margin_loss(
        ...     torch.zeros(1, 2), torch.tensor([0]), torch.tensor([1.0, 16.0])
        ... )
        tensor([0.8738])
    """
    a = negative_ratio
    w = (a * torch.log1p(1 / a)).to(logits)  # (D,)
    z = 2 * logits - a.log().to(logits) / 4  # (N, D)
    return WeightedSigmoidCrossEntropy.apply(z, labels, w.expand_as(z), 0.0)


@MODELS.register_module()
class EffectiveClassMarginLoss(LongTailLoss):
    """Effective Class-Margin Loss for RoI heads; C + 1 sigmoid channels.

    n+ of a class is its image_count (1 where there are none); of background
    it is ``background_ratio`` times their sum. n- is the sum over all
    columns, background included, less n+. At test the margins are left out:
    the probability of a class is p_c (1 - p_background), with p the sigmoid of
    the raw score.

    The authors' code divides by the number of rows, and ignores label weights
    and avg_factor. Its exponentials are infinite above a logit of 88; these
    are not.

    Args:
        background_ratio (float): Background by foreground, above 0. Defaults
            to 6.3313, which the authors counted in Mask R-CNN.

    Examples:
        >>> statistics = ClassStatistics(
        ...     ('dog', 'ibex'), [90, 2], [120, 3], 100, 91
        ... )
        >>> loss = EffectiveClassMarginLoss(num_classes=2)
        >>> loss.set_class_statistics(statistics)
        >>> loss(torch.zeros(1, 3), torch.tensor([1]))
        tensor(2.4132)
    """

    column_blocks = ('sigmoids', 'background_sigmoid')
    explanation = (
        'one yes-or-no question per class, with a wider safety margin for '
        'classes in few training images.'
    )

    negative_ratio: Tensor

    def __init__(
        self,
        num_classes: int,
        background_ratio: float = 6.3313,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(num_classes, loss_weight)
        name = type(self).__name__
        check_numbers(name, '(0, inf)', background_ratio=background_ratio)
        self.background_ratio = background_ratio
        self.add_derived('negative_ratio', (num_classes + 1,), torch.float64)

    def derive(self, statistics: ClassStatistics) -> dict[str, np.ndarray]:
        """Compute n- / n+ of each column."""
        n = np.maximum(statistics.image_count, 1).astype(float)
        n = np.append(n, self.background_ratio * n.sum())
        return {'negative_ratio': (n.sum() - n) / n}

    def row_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute :func:`effective_class_margin_loss`."""
        return effective_class_margin_loss(logits, labels, self.negative_ratio)

"""Seesaw Loss with counts that are equal on all ranks.

Wang et al., Seesaw Loss for Long-Tailed Instance Segmentation, CVPR 2021,
https://arxiv.org/abs/2008.10032

Shapes: N RoIs, C classes. Columns C and C + 1 are foreground and background.
Labels: 0..C-1 foreground, C background.
"""

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor

from mmdet_longtail.models.losses.base import LongTailLoss
from mmdet_longtail.models.losses.online_state import OnlineState
from mmdet_longtail.utils.checks import check_numbers


def seesaw_loss(
    logits: Tensor,
    labels: Tensor,
    class_count: Tensor,
    p: float,
    q: float,
    eps: float,
) -> Tensor:
    r"""Compute softmax cross-entropy with balanced negatives.

    .. math::
        L = -\log \frac{e^{z_i}}{\sum_j S_{ij} e^{z_j}}, \qquad
        S_{ij} = M_{ij} C_{ij}

    for a row of class i. The mitigation factor M is (N_j / N_i)^p where class
    j has been seen less often than i, else 1. The compensation factor C is
    (s_j / s_i)^q where the score of j is above that of i, else 1. The scores
    s are constants of the gradient.

    Args:
        logits (Tensor): Raw scores z of the classes (N, C).
        labels (Tensor): Class i of each row (N,), 0..C-1.
        class_count (Tensor): Rows of each class so far (C,); 0 counts as 1.
        p (float): Exponent of the mitigation factor.
        q (float): Exponent of the compensation factor.
        eps (float): Smallest divisor s_i.

    Returns:
        Tensor: Loss of each row (N,).

    Examples:
        >>> class_count = torch.tensor([100.0, 1.0])
        >>> seesaw_loss(
        ...     torch.zeros(2, 2),
        ...     torch.tensor([0, 1]),
        ...     class_count,
        ...     p=0.8,
        ...     q=2.0,
        ...     eps=0.01,
        ... )
        tensor([0.0248, 0.6931])
    """
    n = class_count.clamp(min=1).log().to(logits)  # (C,)
    log_m = p * (n - n[labels].unsqueeze(1)).clamp(max=0)  # (N, C)
    s = logits.detach().log_softmax(1)  # (N, C)
    s_i = s.gather(1, labels.unsqueeze(1)).exp().clamp(min=eps).log()
    log_c = q * (s - s_i).clamp(min=0)
    # Both are 0 where j = i.
    z = logits + log_m + log_c
    return F.cross_entropy(z, labels, reduction='none')


@MODELS.register_module()
class SyncSeesawLoss(OnlineState, LongTailLoss):
    """Seesaw Loss for RoI heads; C + 2 channels, foreground and background.

    It is mmdet's SeesawLoss with the counts of all ranks, without a look at
    single labels, and with mmdet's checkpoints, whose buffer ``cum_samples``
    it has: the rows of each label so far, background last, in training only.

    It has two terms: the classes' Seesaw Loss on foreground rows, and
    cross-entropy of foreground against background on all rows. Both are
    divided by avg_factor. Without one, as in mmdet, each term is divided by
    the number of its own rows, of foreground or all. As in mmdet, each row
    counts once in the buffer, whatever its label weight.

    Args:
        p (float): Exponent of the mitigation factor, at least 0: less weight
            for negatives of rarer classes. Defaults to 0.8.
        q (float): Exponent of the compensation factor, at least 0: more
            weight for negatives that score too high. Defaults to 2.0. With
            p = q = 0 the first term is softmax cross-entropy.
        eps (float): Smallest score of the true class that divides, above 0.
            Defaults to 1e-2.

    Examples:
        >>> loss = SyncSeesawLoss(num_classes=2)
        >>> terms = loss(torch.zeros(2, 4), torch.tensor([0, 2]))
        >>> for name, term in terms.items():
        ...     print(f'{name} {term:.4f}')
        loss_cls_objectness 0.6931
        loss_cls_classes 0.6931
        >>> loss.cum_samples
        tensor([1., 0., 1.], dtype=torch.float64)
    """

    column_blocks = ('classes', 'foreground', 'background')
    needs_class_statistics = False
    explanation = (
        'object or background first, then one choice among the classes. A '
        'class that was rare so far in training is pushed down less by '
        'others, unless it scores too high.'
    )

    cum_samples: Tensor

    def __init__(
        self,
        num_classes: int,
        p: float = 0.8,
        q: float = 2.0,
        eps: float = 1e-2,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(num_classes, loss_weight)
        name = type(self).__name__
        check_numbers(name, '[0, inf)', p=p, q=q)
        check_numbers(name, '(0, 1]', eps=eps)
        self.p = p
        self.q = q
        self.eps = eps
        self.add_online_state(1, num_classes + 1, cum_samples=0.0)

    def advance(
        self, state: dict[str, Tensor], *sums: Tensor
    ) -> dict[str, Tensor]:
        """Add up the rows."""
        return dict(cum_samples=state['cum_samples'] + sums[0])

    def forward(
        self,
        cls_score: Tensor,
        labels: Tensor,
        label_weights: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
    ) -> Tensor | dict[str, Tensor]:
        """Count the rows, and then compute the terms by their names."""
        logits, C = self.prepare(cls_score), self.num_classes
        zeros = self.cum_samples.new_zeros(C + 1)
        self.observe(zeros.index_add(0, labels, zeros.new_ones(len(labels))))
        is_background = labels == C  # (N,)
        of_classes = seesaw_loss(
            logits[:, :C],
            labels.clamp(max=C - 1),
            self.cum_samples[:C],
            self.p,
            self.q,
            self.eps,
        ).masked_fill(is_background, 0.0)
        objectness = F.cross_entropy(
            logits[:, C:], is_background.long(), reduction='none'
        )
        class_factor = avg_factor
        if class_factor is None:
            class_factor = (~is_background).sum().clamp(min=1)
        terms = dict(
            loss_cls_objectness=(objectness, avg_factor),
            loss_cls_classes=(of_classes, class_factor),
        )
        return {
            name: self.reduce(term, label_weights, factor, reduction_override)
            for name, (term, factor) in terms.items()
        }

    def probs(self, logits: Tensor) -> Tensor:
        """Compute softmax(z)_c p_foreground, and p_background last."""
        C = self.num_classes
        objectness = logits[:, C:].softmax(1)  # (N, 2)
        of_classes = logits[:, :C].softmax(1) * objectness[:, :1]
        return torch.cat([of_classes, objectness[:, 1:]], 1)

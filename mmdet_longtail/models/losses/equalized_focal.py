"""Equalized Focal Loss (EFL) and Equalized Quality Focal Loss (EQFL).

Li et al., Equalized Focal Loss for Dense Long-Tailed Object Detection, CVPR
2022, https://arxiv.org/abs/2201.02593, and its code, which has EQFL, too.

Shapes: N anchors or queries, C classes. Labels: 0..C-1 foreground, C
background.
"""

from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.losses import QualityFocalLoss
from mmdet.registry import MODELS
from torch import Tensor

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.losses.base import DenseHeadLoss, LongTailLoss
from mmdet_longtail.models.losses.online_state import OnlineState
from mmdet_longtail.utils.checks import check_numbers


class _EqualizedFocal(torch.autograd.Function):
    """Loss and gradient of :func:`equalized_focal_loss`.

    It keeps one (N, C) tensor for backward, which is the gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        labels: Tensor,
        quality: Tensor,
        focus: Tensor,
        weight: Tensor,
        alpha: tuple[float, float],
    ) -> tuple[Tensor, Tensor]:
        # All columns as negatives: w p^gamma (-log(1 - p)).
        z, gamma = logits, focus  # (N, C), (C,)
        p, ce = z.sigmoid(), F.softplus(z)
        w = alpha[1] * weight * p**gamma
        loss = w * ce
        gradient = w * (p + gamma * (1 - p) * ce)
        del p, ce, w

        is_foreground = labels < z.size(1)  # (N,)
        true_class = labels.clamp(max=z.size(1) - 1)
        column = true_class.unsqueeze(1)  # (N, 1)
        y, gamma, w = quality, focus[true_class], weight[true_class]  # (N,)
        z = z.gather(1, column).squeeze(1)
        p, q = z.sigmoid(), (-z).sigmoid()
        ce = y * F.softplus(-z) + (1 - y) * F.softplus(z)
        missing = q - (1 - y)  # y - p
        w = alpha[0] * w * missing.abs() ** (gamma - 1)
        slope = w * (gamma * p * q * ce + missing**2)
        for matrix, positive in (
            (loss, w * missing.abs() * ce),
            (gradient, -missing.sign() * slope),
        ):
            negative = matrix.gather(1, column).squeeze(1)
            value = torch.where(is_foreground, positive, negative)
            matrix.scatter_(1, column, value.unsqueeze(1))
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(gradient)
        return loss.sum(1), gradient

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise LongTailError(
                'equalized focal loss has no second derivative here: call '
                'backward without create_graph=True'
            )
        (gradient,) = ctx.saved_tensors
        return gradient * grad_outputs[0].unsqueeze(1), *[None] * 5


def equalized_focal_loss(
    logits: Tensor,
    labels: Tensor,
    gradient_ratio: Tensor,
    quality: Tensor | None = None,
    gamma: float = 2.0,
    alpha: tuple[float, float] = (0.25, 0.75),
    scale_factor: float = 8.0,
) -> tuple[Tensor, Tensor]:
    r"""Compute focal loss with a focus per class, and its gradient.

    .. math::
        L = -\sum_j \alpha_j \frac{\gamma_j}{\gamma} |y_j - p_j|^{\gamma_j}
            (y_j \log p_j + (1 - y_j) \log (1 - p_j)), \qquad
        \gamma_j = \gamma + s (1 - g_j)

    (Eq. 4 to 6), where y_j is the quality of the box in the column of the
    label, and 0 in all others. alpha_j is the first of the two values in the
    column of the label, the second in all others. Where y_j is 0 or 1, with q
    = |y_j - p_j|, the gradient has the size

    .. math::
        \left|\frac{\partial L}{\partial z_j}\right| =
            \alpha_j \frac{\gamma_j}{\gamma} q^{\gamma_j}
            (q - \gamma_j (1 - q) \log (1 - q))

    Args:
        logits (Tensor): Raw scores z (N, C).
        labels (Tensor): Labels (N,).
        gradient_ratio (Tensor): g of each class (C,), 0..1.
        quality (Tensor, optional): y of each row's label (N,), 0..1. Defaults
            to None, 1.
        gamma (float): Focus of a class with balanced gradients, at least 1.
        alpha (tuple[float, float]): Weights of positives and of negatives.
        scale_factor (float): s, at least 0, the largest addition to gamma.

    Returns:
        tuple[Tensor, Tensor]: Loss of each row (N,), summed over the
        classes, and its gradient at the logits (N, C), without a graph.

    Examples:
        >>> rows, gradient = equalized_focal_loss(
        ...     torch.zeros(1, 2), torch.tensor([0]), torch.ones(2)
        ... )
        >>> rows
        tensor([0.1733])
        >>> gradient
        tensor([[-0.0746,  0.2237]])
    """
    if quality is None:
        quality = torch.ones_like(logits[:, 0])
    focus = gamma + scale_factor * (1 - gradient_ratio.to(logits))  # (C,)
    return _EqualizedFocal.apply(
        logits, labels, quality.to(logits), focus, focus / gamma, alpha
    )


def sum_gradients(
    gradient: Tensor, labels: Tensor, row_weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Sum the sizes of the gradients of positives, and of negatives.

    Args:
        gradient (Tensor): At the logits (N, C).
        labels (Tensor): Labels (N,).
        row_weights (Tensor): Factor of each row (N,), at least 0.

    Returns:
        tuple[Tensor, Tensor]: G+ and G- of each class, (C,) each.

    Examples:
        >>> gradient = torch.tensor([[-0.5, 0.25], [0.25, 0.25]])
        >>> sum_gradients(gradient, torch.tensor([0, 2]), torch.ones(2))
        (tensor([0.5000, 0.0000]), tensor([0.2500, 0.5000]))
    """
    C = gradient.size(1)
    size = row_weights.unsqueeze(1) * gradient.abs()  # (N, C)
    column = labels.clamp(max=C - 1).unsqueeze(1)  # (N, 1)
    found = size.gather(1, column)
    is_foreground = (labels < C).unsqueeze(1)
    positive = torch.where(is_foreground, found, 0.0)
    size.scatter_(1, column, found - positive)
    pos_grad = size.new_zeros(C).index_add(0, column[:, 0], positive[:, 0])
    return pos_grad, size.sum(0)


@MODELS.register_module()
class EqualizedFocalLoss(DenseHeadLoss, OnlineState, LongTailLoss):
    """Equalized Focal Loss for dense heads; C sigmoid channels.

    It needs no class statistics. The focus of a class follows from the sums
    of its gradients in all iterations so far, in the buffers ``pos_grad`` and
    ``neg_grad``, and their ratio ``pos_neg``, 0..1, which begins at 1. The
    gradients are those of the loss divided by avg_factor, in closed form:
    there is no backward hook, and mixed precision works.

    The state is that of the iteration's start in all calls of an iteration:
    many heads call a loss once per level of the feature pyramid.
    `OnlineStateHook`, which `ClassStatisticsHook` registers, ends an
    iteration. Without the hook every call in training is an iteration.

    In DETR heads it is experimental: each object has one positive, and the
    ratio may stay at 1, which leaves plain focal loss.

    Args:
        num_classes (int): Number of foreground classes, C.
        use_sigmoid (bool): Must be True; the heads look for the key.
        gamma (float): Focus of a class with balanced gradients, at least 1.
            Defaults to 2.0.
        alpha (float): Weight of positives, 0..1. Defaults to 0.25.
        scale_factor (float): s, at least 0, the largest addition to gamma; 0
            is focal loss. Defaults to 8.0; the authors have 4 for YOLOX.
        loss_weight (float): Factor of the loss. Defaults to 1.0.

    Examples:
        >>> loss = EqualizedFocalLoss(num_classes=2)
        >>> loss(torch.zeros(1, 2), torch.tensor([0]))
        tensor(0.1733)
        >>> loss.pos_neg
        tensor([1., 0.], dtype=torch.float64)
    """

    column_blocks = ('sigmoids',)
    needs_class_statistics = False
    updates_between_iterations = True
    explanation = (
        'one yes-or-no question per class; boxes that are already answered '
        'well hardly count, the less so the more a class was pushed down so '
        'far in training.'
    )
    loss_for_roi_heads = 'EqualizationLossV2'

    pos_grad: Tensor
    neg_grad: Tensor
    pos_neg: Tensor

    def __init__(
        self,
        num_classes: int,
        use_sigmoid: bool = True,
        gamma: float = 2.0,
        alpha: float = 0.25,
        scale_factor: float = 8.0,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(num_classes, loss_weight)
        name = type(self).__name__
        self.set_use_sigmoid(use_sigmoid)
        check_numbers(name, '[1, inf)', gamma=gamma)
        check_numbers(name, '[0, 1]', alpha=alpha)
        check_numbers(name, '[0, inf)', scale_factor=scale_factor)
        self.gamma = gamma
        self.alpha = (alpha, 1 - alpha)
        self.scale_factor = scale_factor
        self.add_online_state(
            2, num_classes, pos_grad=0.0, neg_grad=0.0, pos_neg=1.0
        )

    def advance(
        self, state: dict[str, Tensor], *sums: Tensor
    ) -> dict[str, Tensor]:
        """Add up the gradients, and compute their ratio."""
        pos_grad = state['pos_grad'] + sums[0]
        neg_grad = state['neg_grad'] + sums[1]
        pos_neg = (pos_grad / (neg_grad + 1e-10)).clamp(0, 1)
        return dict(pos_grad=pos_grad, neg_grad=neg_grad, pos_neg=pos_neg)

    def forward(
        self,
        cls_score: Tensor,
        labels: Tensor | tuple[Tensor, Tensor],
        label_weights: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss, and add its gradients to the state.

        Args:
            cls_score (Tensor): Raw scores (N, C).
            labels (Tensor or tuple[Tensor, Tensor]): Labels (N,), or labels
                and the quality (N,), 0..1, of the box of each positive.
            label_weights (Tensor, optional): Weights (N,).
            avg_factor (float or Tensor, optional): Divisor of the mean; None
                is the number of rows.
            reduction_override (str, optional): 'mean', 'sum' or 'none'.
            weight (Tensor, optional): ``label_weights``, as GFLHead names
                them.

        Returns:
            Tensor: 0-dim, or (N,) with 'none'.

        Raises:
            LongTailError: If the width is not C, or reduction_override is
                another.
        """
        quality = None
        if isinstance(labels, tuple):
            labels, quality = labels
        label_weights = weight if label_weights is None else label_weights
        logits = self.prepare(cls_score)
        rows, gradient = equalized_focal_loss(
            logits,
            labels,
            self.pos_neg,
            quality,
            self.gamma,
            self.alpha,
            self.scale_factor,
        )
        if self.training:
            row_weights = torch.ones_like(gradient[:, 0])
            if label_weights is not None:
                row_weights = label_weights.to(gradient)
            divisor = max(len(rows), 1) if avg_factor is None else avg_factor
            sums = sum_gradients(gradient, labels, row_weights / divisor)
            self.observe(*sums)
        return self.reduce(rows, label_weights, avg_factor, reduction_override)


@MODELS.register_module()
class EqualizedQualityFocalLoss(EqualizedFocalLoss, QualityFocalLoss):
    """Equalized Quality Focal Loss for GFL and DETR heads; C sigmoids.

    The score of a positive is trained towards the IoU of its box, which
    GFLHead and mmdet's DETR heads give to a `QualityFocalLoss`. Other heads
    give labels only, whose quality is 1. There is no alpha. For the state see
    :class:`EqualizedFocalLoss`.

    Args:
        num_classes (int): Number of foreground classes, C.
        use_sigmoid (bool): Must be True; the heads look for the key.
        gamma (float): Focus of a class with balanced gradients, at least 1.
            Defaults to 2.0.
        scale_factor (float): s, at least 0, the largest addition to gamma; 0
            is quality focal loss. Defaults to 8.0.
        loss_weight (float): Factor of the loss. Defaults to 1.0.

    Examples:
        >>> loss = EqualizedQualityFocalLoss(num_classes=2)
        >>> labels, quality = torch.tensor([0]), torch.tensor([0.7])
        >>> loss(torch.zeros(1, 2), (labels, quality))
        tensor(0.2010)
    """

    takes_quality = True

    def __init__(
        self,
        num_classes: int,
        use_sigmoid: bool = True,
        gamma: float = 2.0,
        scale_factor: float = 8.0,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(
            num_classes,
            use_sigmoid,
            gamma,
            scale_factor=scale_factor,
            loss_weight=loss_weight,
        )
        self.alpha = (1.0, 1.0)

"""Classifier rows of equal norm (tau-norm), also for tail classes only.

Shapes: N RoIs, C classes, F features. Background is column C.
"""

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor

from mmdet_longtail.models.losses.base import LongTailLoss
from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.utils.checks import check_numbers


def tau_norm_scale(
    class_weight: Tensor, tau: float, as_published: bool = False
) -> Tensor:
    """Compute factors that equalize the norms of a classifier's rows.

    For rows w (C, F), without background, and tau >= 0 the factors (C,) are
    s_c = (m / ||w_c||)^tau, or 1 for a row of zeros, with m the mean norm of
    the rows: tau = 0 changes nothing, tau = 1 gives each row the norm m. As
    published, m is 1, so that the classes get another scale than background.

    Source: Kang et al., Decoupling Representation and Classifier for
    Long-Tailed Recognition, ICLR 2020, https://arxiv.org/abs/1910.09217,
    Eq. 4; as Li et al., Balanced Group Softmax, CVPR 2020, apply it to
    detectors.

    Examples:
        >>> class_weight = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
        >>> tau_norm_scale(class_weight, tau=1.0)
        tensor([0.6000, 3.0000])
    """
    length = class_weight.norm(dim=1)
    m = 1.0 if as_published else length.mean()
    return torch.where(length > 0, (m / length) ** tau, 1.0)


@MODELS.register_module()
class TauNormSelectLoss(LongTailLoss):
    """Predict by tau-norm where it finds a tail class, else as trained.

    With z the scores and z' those of the scaled rows,

        z'_c = (z_c - b_c) s_c + b_c,    background z'_C = z_C,

    a RoI takes softmax(z') in the place of softmax(z) if z has its largest
    value in a class, not in background, and z' in a tail class.

    ``longtail calibrate --method tau-norm --select`` writes ``scale`` (s) and
    ``bias`` (b) into its checkpoint. Their initial values are 1 and 0.
    Training minimizes plain softmax cross-entropy and does not update either:
    run the command again after training.

    Args:
        num_classes (int): Number of foreground classes, C.
        fewer_than (float): A class with fewer training boxes is tail.
            Defaults to 100.
        loss_weight (float): Factor of the loss. Defaults to 1.0.

    Source: Li et al., Balanced Group Softmax, CVPR 2020, Table 1, row
    "tau-norm-select", as in its code (test_mixins.py).

    Examples:
        >>> statistics = ClassStatistics(
        ...     ('dog', 'ibex'), [90, 2], [120, 3], 100, 91
        ... )
        >>> loss = TauNormSelectLoss(num_classes=2)
        >>> loss.set_class_statistics(statistics)
        >>> loss(torch.zeros(1, 3), torch.tensor([0]))
        tensor(1.0986)
    """

    needs_class_statistics = False
    predicts_with_class_statistics = True
    is_softmax = False  # Scaled rows may replace the scores of a RoI.
    explanation = (
        'one choice among all classes; at test time, scores with rows of '
        'equal length decide for classes with few training boxes.'
    )

    scale: Tensor
    bias: Tensor
    is_tail: Tensor

    def __init__(
        self,
        num_classes: int,
        fewer_than: float = 100,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(num_classes, loss_weight)
        check_numbers(type(self).__name__, '[0, inf)', fewer_than=fewer_than)
        self.fewer_than = fewer_than
        self.register_buffer('scale', torch.ones(num_classes))
        self.register_buffer('bias', torch.zeros(num_classes))
        self.add_derived('is_tail', (num_classes,))

    def derive(self, statistics: ClassStatistics) -> dict[str, np.ndarray]:
        """Compute the mask of tail classes (C,)."""
        return {'is_tail': statistics.instance_count < self.fewer_than}

    def row_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute softmax cross-entropy of the detector's own scores."""
        return F.cross_entropy(logits, labels, reduction='none')

    def probs(self, logits: Tensor) -> Tensor:
        """Compute the softmax of z or z' (N, C + 1)."""
        z, s, b = logits, self.scale.to(logits), self.bias.to(logits)
        scaled = torch.cat([(z[:, :-1] - b) * s + b, z[:, -1:]], 1)
        is_tail = F.pad(self.is_tail, (0, 1)) > 0  # background is not
        is_object = z.argmax(1) < self.num_classes  # (N,)
        is_replaced = is_object & is_tail[scaled.argmax(1)]  # (N,)
        return torch.where(is_replaced.unsqueeze(1), scaled, z).softmax(1)

"""Classifier rows of equal length, for the tail classes only.

Shapes: N RoIs, C classes, F features. Background is column C.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor

from mmdet_longtail.models.losses.base import LongTailLoss
from mmdet_longtail.structures.class_statistics import ClassStatistics


def tau_norm_scale(
    class_weight: Tensor, tau: float, as_published: bool = False
) -> Tensor:
    """Factors that even out the lengths of a classifier's rows.

    s_c = (m / ||w_c||)^tau, with m the mean length of the classes' rows:
    tau = 0 changes nothing, tau = 1 gives each row the length m. As
    published, m is 1: the background row, which is not among them, then
    meets classes of another scale than the one it was trained with.

    Args:
        class_weight (Tensor): Rows of the classes, without background
            (C, F).
        tau (float): At least 0.
        as_published (bool): Whether m is 1. Defaults to False.

    Returns:
        Tensor: s (C,); 1 for a row of zeros.

    Source: Kang et al., Decoupling Representation and Classifier for
    Long-Tailed Recognition, ICLR 2020, https://arxiv.org/abs/1910.09217,
    Eq. 4; as Li et al., Balanced Group Softmax, CVPR 2020, apply it to
    detectors.
    """
    length = class_weight.norm(dim=1)
    m = 1.0 if as_published else length.mean()
    s = (m / length) ** tau
    return torch.where(length > 0, s, 1.0)


@MODELS.register_module()
class TauNormSelectLoss(LongTailLoss):
    """Scores of tau-norm where it finds a tail class, else the detector's.

    With z the scores and z' those of the scaled rows,

        z'_c = (z_c - b_c) s_c + b_c,    background z'_C = z_C,

    a RoI takes softmax(z') in the place of softmax(z) if z has its largest
    value in a class, not in background, and z' in a class of fewer than
    ``fewer_than`` training boxes.

    ``scale`` and ``bias`` come with the checkpoint of
    tools/model_converters/tau_normalize.py --select; before that they are 1 and 0. Trained,
    it is plain softmax cross-entropy, but the two stay what they were: run
    the tool again after training.

    Args:
        num_classes (int): Number of foreground classes, C.
        fewer_than (float): Training boxes that a tail class has less of.
            Defaults to 100.
        loss_weight (float): Factor of the loss. Defaults to 1.0.

    Source: Li et al., Balanced Group Softmax, CVPR 2020, Table 1, row
    "tau-norm-select", as in its code (test_mixins.py).
    """

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
        self.fewer_than = fewer_than
        self.register_buffer('scale', torch.ones(num_classes))
        self.register_buffer('bias', torch.zeros(num_classes))
        # Of each column: background is never tail.
        self.register_buffer(
            'is_tail',
            torch.zeros(num_classes + 1, dtype=torch.bool),
            persistent=False,
        )

    def get_cls_channels(self, num_classes: int) -> int:
        """The classes and background."""
        return num_classes + 1

    def derive(self, statistics: ClassStatistics) -> None:
        """Which columns are tail classes."""
        is_tail = statistics.instance_count < self.fewer_than
        self.is_tail[:-1].copy_(torch.as_tensor(is_tail))

    def row_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Softmax cross-entropy of the detector's own scores."""
        return F.cross_entropy(logits, labels, reduction='none')

    def get_activation(self, cls_score: Tensor) -> Tensor:
        """Probabilities (N, C + 1), background last.

        Args:
            cls_score (Tensor): Raw scores (N, C + 1).
        """
        z = self.prepare(cls_score)
        s = self.scale.to(z)
        b = self.bias.to(z)
        scaled = torch.cat([(z[:, :-1] - b) * s + b, z[:, -1:]], 1)
        is_object = z.argmax(1) < self.num_classes  # (N,)
        finds_tail = self.is_tail[scaled.argmax(1)]  # (N,)
        is_replaced = (is_object & finds_tail).unsqueeze(1)
        return torch.where(is_replaced, scaled, z).softmax(1)

    def extra_repr(self) -> str:
        """Show the settings where PyTorch prints the module."""
        return f'{super().extra_repr()}, fewer_than={self.fewer_than}'

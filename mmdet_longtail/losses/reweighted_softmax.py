"""Softmax cross-entropy weighted by the class of the row.

Shapes: N RoIs, C classes. Labels: 0..C-1 foreground, C background.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS, TASK_UTILS
from torch import Tensor

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.statistics import ClassStatistics

from .base import LongTailLoss, build_choice


@TASK_UTILS.register_module()
class EffectiveNumberClassWeight:
    """(1 - beta) / (1 - beta^n), the inverse of the effective number.

    Cui et al., Class-Balanced Loss Based on Effective Number of Samples,
    CVPR 2019, https://arxiv.org/abs/1901.05555, Eq. 2.

    Args:
        beta (float): 0 to below 1; 0 weighs all classes alike, towards 1 it
            is the inverse of the count. Defaults to 0.999.

    Raises:
        LongTailError: If beta is out of its range.
    """

    def __init__(self, beta: float = 0.999) -> None:
        if not 0 <= beta < 1:
            raise LongTailError(
                f'EffectiveNumberClassWeight: beta is {beta}, expected a '
                'number from 0 to below 1'
            )
        self.beta = beta

    def __call__(self, counts: np.ndarray) -> np.ndarray:
        beta = self.beta
        return (1 - beta) / (1 - beta**counts)


@TASK_UTILS.register_module()
class InverseClassWeight:
    """1 / n, the inverse of the frequency.

    Huang et al., Learning Deep Representation for Imbalanced Classification,
    CVPR 2016.
    """

    def __call__(self, counts: np.ndarray) -> np.ndarray:
        return 1 / counts


@TASK_UTILS.register_module()
class InverseSquareRootClassWeight:
    """1 / sqrt(n), smoother than the inverse.

    Mahajan et al., Exploring the Limits of Weakly Supervised Pretraining,
    ECCV 2018.
    """

    def __call__(self, counts: np.ndarray) -> np.ndarray:
        return 1 / np.sqrt(counts)


CLASS_WEIGHTS = (
    EffectiveNumberClassWeight,
    InverseClassWeight,
    InverseSquareRootClassWeight,
)


@MODELS.register_module()
class ReweightedSoftmaxLoss(LongTailLoss):
    """Softmax cross-entropy of C + 1 channels, weighted by class.

    The weight of a row is that of its class, by the rule's formula on the
    training boxes of the class, n = instance_count (1 where there are none).
    The weights of the classes have the mean 1; background has 1.

    Args:
        num_classes (int): Number of foreground classes, C.
        class_weight (dict): Config of the rule: EffectiveNumberClassWeight,
            InverseClassWeight or InverseSquareRootClassWeight.
        loss_weight (float): Factor of the loss. Defaults to 1.0.

    Raises:
        LongTailError: If class_weight is something else.
    """

    class_weight: Tensor

    def __init__(
        self,
        num_classes: int,
        class_weight: dict[str, Any],
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(num_classes, loss_weight)
        self.weigh = build_choice(
            self, 'class_weight', class_weight, CLASS_WEIGHTS
        )
        self.register_buffer(
            'class_weight', torch.ones(num_classes + 1), persistent=False
        )

    def get_cls_channels(self, num_classes: int) -> int:
        """The classes and background."""
        return num_classes + 1

    def derive(self, statistics: ClassStatistics) -> None:
        """The weight of each class, and of background."""
        n = np.maximum(statistics.instance_count, 1)
        w = self.weigh(n)
        self.class_weight.copy_(torch.as_tensor([*(w / w.mean()), 1.0]))

    def row_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """w_y CE(z, y); the mean is over rows, not over weights."""
        w = self.class_weight.to(logits)
        return F.cross_entropy(logits, labels, reduction='none') * w[labels]

    def get_activation(self, cls_score: Tensor) -> Tensor:
        """Softmax (N, C + 1), background last.

        Args:
            cls_score (Tensor): Raw scores (N, C + 1).
        """
        return self.prepare(cls_score).softmax(1)

    def extra_repr(self) -> str:
        """Show the settings where PyTorch prints the module."""
        rule = type(self.weigh).__name__
        return f'{super().extra_repr()}, class_weight={rule}'

"""Softmax cross-entropy weighted by the class of the row.

Shapes: N RoIs, C classes. Labels: 0..C-1 foreground, C background.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS, TASK_UTILS
from torch import Tensor

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.losses.base import LongTailLoss, build_choice
from mmdet_longtail.structures.class_statistics import ClassStatistics


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


def check_weight_range(
    weight_range: tuple[float, float] | None, owner: str
) -> None:
    """Refuse limits that leave no weights.

    Args:
        weight_range (tuple[float, float], optional): What a config gave.
        owner (str): The class that it belongs to, for the message.

    Raises:
        LongTailError: If it is neither None nor two numbers of which the
            first is at least 0 and below the second.
    """
    if weight_range is None:
        return
    limits = np.array(weight_range)
    is_valid = (
        limits.shape == (2,)
        and np.issubdtype(limits.dtype, np.number)
        and 0 <= limits[0] < limits[1]
    )
    if not is_valid:
        raise LongTailError(
            f'{owner}: weight_range is {weight_range!r}, expected the '
            'smallest and the largest weight, such as (0.1, 5.0), or None'
        )


def relative_class_weights(
    weigh: Callable[[np.ndarray], np.ndarray],
    instance_count: np.ndarray,
    weight_range: tuple[float, float] | None,
) -> np.ndarray:
    """Weights of some classes, with the mean 1 before they are clipped.

    Args:
        weigh (Callable): The rule, from counts to weights.
        instance_count (np.ndarray): Training boxes of the classes; 0 is
            taken for 1.
        weight_range (tuple[float, float], optional): The smallest and the
            largest weight.

    Returns:
        np.ndarray: A weight for each class.
    """
    w = weigh(np.maximum(instance_count, 1))
    w = w / w.mean()
    return w if weight_range is None else w.clip(*weight_range)


@MODELS.register_module()
class ReweightedSoftmaxLoss(LongTailLoss):
    """Softmax cross-entropy of C + 1 channels, weighted by class.

    The weight of a row is that of its class, by the rule's formula on the
    training boxes of the class, n = instance_count (1 where there are none).
    The weights of the classes have the mean 1, then weight_range clips them;
    background has 1.

    Re-weight in Table 1 of Li et al., Balanced Group Softmax, CVPR 2020, is
    InverseClassWeight, and Re-weight-cls is EffectiveNumberClassWeight with
    beta 0.999, both with the weight_range (0.1, 5.0).

    Args:
        num_classes (int): Number of foreground classes, C.
        class_weight (dict): Config of the rule: EffectiveNumberClassWeight,
            InverseClassWeight or InverseSquareRootClassWeight.
        weight_range (tuple[float, float], optional): The smallest and the
            largest weight of a class. Defaults to None, no limits.
        loss_weight (float): Factor of the loss. Defaults to 1.0.

    Raises:
        LongTailError: If class_weight is something else, or weight_range is
            no range.
    """

    class_weight: Tensor

    def __init__(
        self,
        num_classes: int,
        class_weight: dict[str, Any],
        weight_range: tuple[float, float] | None = None,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(num_classes, loss_weight)
        self.weigh = build_choice(
            self, 'class_weight', class_weight, CLASS_WEIGHTS
        )
        check_weight_range(weight_range, type(self).__name__)
        self.weight_range = weight_range
        self.register_buffer(
            'class_weight', torch.ones(num_classes + 1), persistent=False
        )

    def get_cls_channels(self, num_classes: int) -> int:
        """The classes and background."""
        return num_classes + 1

    def derive(self, statistics: ClassStatistics) -> None:
        """The weight of each class, and of background."""
        w = relative_class_weights(
            self.weigh, statistics.instance_count, self.weight_range
        )
        self.class_weight.copy_(torch.as_tensor([*w, 1.0]))

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
        return (
            f'{super().extra_repr()}, class_weight={rule}, '
            f'weight_range={self.weight_range}'
        )

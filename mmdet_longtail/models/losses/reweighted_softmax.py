"""Softmax cross-entropy with class weights.

Shapes: N RoIs, C classes. Labels: 0..C-1 foreground, C background.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch.nn.functional as F
from mmdet.registry import MODELS, TASK_UTILS
from torch import Tensor

from mmdet_longtail.errors import check
from mmdet_longtail.models.losses.base import LongTailLoss, build_choice
from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.utils.checks import check_numbers


@TASK_UTILS.register_module()
@dataclass(frozen=True)
class EffectiveNumberClassWeight:
    """(1 - beta) / (1 - beta^n), the inverse of the effective number.

    Cui et al., Class-Balanced Loss Based on Effective Number of Samples,
    CVPR 2019, https://arxiv.org/abs/1901.05555, Eq. 2.

    Args:
        beta (float): In [0, 1); 0 weighs all classes alike, towards 1 it is
            the inverse of the count. Defaults to 0.999.

    Examples:
        >>> EffectiveNumberClassWeight(beta=0.5)(np.array([1, 2]))
        array([1.        , 0.66666667])
    """

    beta: float = 0.999

    def __post_init__(self) -> None:
        check_numbers(type(self).__name__, '[0, 1)', beta=self.beta)

    def __call__(self, counts: np.ndarray) -> np.ndarray:
        return (1 - self.beta) / (1 - self.beta**counts)


@TASK_UTILS.register_module()
@dataclass(frozen=True)
class InverseClassWeight:
    """1 / n, the inverse of the frequency.

    Huang et al., Learning Deep Representation for Imbalanced Classification,
    CVPR 2016.

    Examples:
        >>> InverseClassWeight()(np.array([1, 100]))
        array([1.  , 0.01])
    """

    def __call__(self, counts: np.ndarray) -> np.ndarray:
        return 1 / counts


@TASK_UTILS.register_module()
@dataclass(frozen=True)
class InverseSquareRootClassWeight:
    """1 / sqrt(n), smoother than the inverse.

    Mahajan et al., Exploring the Limits of Weakly Supervised Pretraining,
    ECCV 2018.

    Examples:
        >>> InverseSquareRootClassWeight()(np.array([1, 100]))
        array([1. , 0.1])
    """

    def __call__(self, counts: np.ndarray) -> np.ndarray:
        return 1 / np.sqrt(counts)


CLASS_WEIGHTS = (
    EffectiveNumberClassWeight,
    InverseClassWeight,
    InverseSquareRootClassWeight,
)


class ReweightedLoss(LongTailLoss):
    """Base class of the losses whose rows have the weight of their class."""

    class_weight: Tensor

    def set_class_weight(
        self,
        class_weight: dict[str, Any],
        weight_range: tuple[float, float] | None,
    ) -> None:
        """Set the rule and the range of the weights.

        Raises:
            LongTailError: If class_weight is no rule, or weight_range is not
                None or two numbers, the first at least 0 and below the
                second.
        """
        self.rule = build_choice(
            self, 'class_weight', class_weight, CLASS_WEIGHTS
        )
        limits = np.array((0.0, 1.0) if weight_range is None else weight_range)
        check(
            limits.shape == (2,)
            and np.issubdtype(limits.dtype, np.number)
            and 0 <= limits[0] < limits[1],
            f'{type(self).__name__}: weight_range is {weight_range!r}, '
            'expected the smallest and the largest weight, such as '
            '(0.1, 5.0), or None',
        )
        self.weight_range = weight_range
        self.add_derived('class_weight', (self.num_classes,))

    def weigh(self, instance_count: np.ndarray) -> np.ndarray:
        """Compute one weight per class; a count of 0 is taken as 1."""
        w = self.rule(np.maximum(instance_count, 1))
        w = w / w.mean()
        return w if self.weight_range is None else w.clip(*self.weight_range)


@MODELS.register_module()
class ReweightedSoftmaxLoss(ReweightedLoss):
    """Softmax cross-entropy of C + 1 channels, weighted by class.

    A row has the weight of its class: the rule's formula on the training
    boxes of the class, n = instance_count (1 where there are none), divided
    by its mean over the classes, then clipped. Background has the weight 1.

    Re-weight in Table 1 of Li et al., Balanced Group Softmax, CVPR 2020, is
    InverseClassWeight, and Re-weight-cls is EffectiveNumberClassWeight with
    beta 0.999, both with the weight_range (0.1, 5.0).

    Args:
        class_weight (dict): Config of the rule: EffectiveNumberClassWeight,
            InverseClassWeight or InverseSquareRootClassWeight.
        weight_range (tuple[float, float], optional): The smallest and the
            largest weight of a class. Defaults to None, no limits.

    Examples:
        >>> import torch
        >>> statistics = ClassStatistics(
        ...     ('dog', 'ibex'), [90, 2], [120, 3], 100, 91
        ... )
        >>> loss = ReweightedSoftmaxLoss(2, dict(type='InverseClassWeight'))
        >>> loss.set_class_statistics(statistics)
        >>> loss.class_weight
        tensor([0.0488, 1.9512])
        >>> loss(torch.zeros(1, 3), torch.tensor([1]))
        tensor(2.1436)
    """

    explanation = (
        'one choice among all classes, where boxes of classes with few '
        'training boxes count more.'
    )

    def __init__(
        self,
        num_classes: int,
        class_weight: dict[str, Any],
        weight_range: tuple[float, float] | None = None,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(num_classes, loss_weight)
        self.set_class_weight(class_weight, weight_range)

    def derive(self, statistics: ClassStatistics) -> dict[str, np.ndarray]:
        """Compute the weight of each class."""
        return {'class_weight': self.weigh(statistics.instance_count)}

    def row_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute w_y CE(z, y); the mean is over rows, not over weights."""
        w = F.pad(self.class_weight.to(logits), (0, 1), value=1.0)  # (C + 1,)
        return F.cross_entropy(logits, labels, reduction='none') * w[labels]

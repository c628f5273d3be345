"""What the losses share that know head from tail by a threshold lambda."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.losses.base import LongTailLoss, warn_once
from mmdet_longtail.models.losses.tail_weight import ThresholdTailWeight
from mmdet_longtail.structures.class_statistics import ClassStatistics


class TailLoss(LongTailLoss):
    """Base class of the equalization losses: lambda and T(f).

    Args:
        num_classes (int): Number of foreground classes, C.
        frequency_threshold (float, optional): lambda, a share of the images,
            0..1: classes with image_frequency < lambda are tail. None derives
            it from ``tail_ratio``.
        tail_ratio (float): Largest share of image_count, 0..1, that tail
            classes may hold when lambda is derived; Tan et al.'s Table 2 is
            best at 9 %. Defaults to 0.09.
        loss_weight (float): Factor of the loss. Defaults to 1.0.

    Raises:
        LongTailError: If a value lies outside its range.
    """

    plain: str  # the loss that is left without a tail, in words

    tail_weight: Tensor

    def __init__(
        self,
        num_classes: int,
        frequency_threshold: float | None = None,
        tail_ratio: float = 0.09,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(num_classes, loss_weight)
        for key, value in (
            ('frequency_threshold', frequency_threshold),
            ('tail_ratio', tail_ratio),
        ):
            if value is not None and not 0 <= value <= 1:
                raise LongTailError(
                    f'{type(self).__name__}: {key} is {value}, expected a '
                    'share between 0 and 1'
                )
        self.frequency_threshold = frequency_threshold
        self.tail_ratio = tail_ratio
        self.weigh: Callable = ThresholdTailWeight()
        self.register_buffer(
            'tail_weight', torch.zeros(num_classes), persistent=False
        )

    def threshold(self, statistics: ClassStatistics) -> float:
        """Lambda on these counts: the given one, else from the tail ratio."""
        if self.frequency_threshold is not None:
            return self.frequency_threshold
        if self.tail_ratio == 0:
            return 0.0
        return statistics.threshold_for_tail_ratio(self.tail_ratio)

    def derive(self, statistics: ClassStatistics) -> None:
        """T(f) of each class."""
        T = self.weigh(statistics.image_frequency, self.threshold(statistics))
        self.tail_weight.copy_(torch.as_tensor(T))

    def check_statistics(self, statistics: ClassStatistics) -> None:
        """Warn when lambda leaves nothing, or everything, to spare."""
        threshold = self.threshold(statistics)
        if threshold == 0:
            return
        num_tail = int((statistics.image_frequency < threshold).sum())
        tail_ratio = statistics.tail_ratio(threshold)
        if num_tail < self.num_classes and tail_ratio >= 0.005:
            return
        suggested = statistics.threshold_for_tail_ratio(0.09)
        effect = (
            'no class suppresses another'
            if num_tail == self.num_classes
            else f'this is plain {self.plain}'
        )
        warn_once(
            f'{type(self).__name__}: frequency_threshold={threshold:.3g} '
            f'makes {num_tail} of {self.num_classes} classes tail, tail ratio '
            f'{tail_ratio:.2%}: {effect}; this data suggests '
            f'frequency_threshold={suggested:.3g} (tail ratio '
            f'{statistics.tail_ratio(suggested):.2%})'
        )

    def describe(self, statistics: ClassStatistics) -> dict[str, float]:
        """Lambda, the tail ratio, and how many classes are tail."""
        threshold = self.threshold(statistics)
        is_tail = statistics.image_frequency < threshold
        return {
            'frequency_threshold': threshold,
            'tail_ratio': statistics.tail_ratio(threshold),
            'num_tail_classes': int(is_tail.sum()),
        }

    def extra_repr(self) -> str:
        """Show the settings where PyTorch prints the module."""
        return (
            f'{super().extra_repr()}, '
            f'frequency_threshold={self.frequency_threshold}, '
            f'tail_ratio={self.tail_ratio}'
        )

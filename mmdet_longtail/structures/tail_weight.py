"""Forms of EQL's T(f), the share of its negatives that a tail class is spared.

Tan et al., Equalization Loss for Long-Tailed Object Recognition, CVPR 2020,
section 4.4, Table 3 and Fig. 3. Each form maps the image_frequency f of tail
classes (C,) to T(f) (C,), 0..1; T(f) of all other classes is 0. Tail classes
are those with f < lambda, but for `InstanceCountTailWeight`. A config names
the forms as ``tail_weight`` of a loss. A parameter out of its range raises a
LongTailError.
"""

from dataclasses import dataclass

import numpy as np

from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.utils.checks import check_numbers


class TailWeight:
    """Base class of the forms: tail classes by image_frequency < lambda."""

    def __call__(self, f: np.ndarray) -> np.ndarray:
        """Compute T(f) of tail classes."""
        raise NotImplementedError

    def is_tail(
        self, statistics: ClassStatistics, frequency_threshold: float
    ) -> np.ndarray:
        """Return the mask of tail classes, (C,)."""
        return statistics.is_tail(frequency_threshold)

    def describe(self, frequency_threshold: float) -> dict[str, float]:
        """Return lambda by the key that sets it."""
        return {'frequency_threshold': frequency_threshold}


@dataclass(frozen=True)
class ThresholdTailWeight(TailWeight):
    """T(f) = 1 (Eq. 7), the paper's choice.

    Examples:
        >>> ThresholdTailWeight()(np.array([0.0001, 0.001]))
        array([1., 1.])
    """

    def __call__(self, f: np.ndarray) -> np.ndarray:
        return np.ones_like(f)


@dataclass(frozen=True)
class ExponentialTailWeight(TailWeight):
    """T(f) = 1 - (a f)^n, at least 0; the defaults are the paper's, LVIS v0.5.

    Beyond f = 1 / a the paper's formula is negative, which would weigh
    negatives more than 1; so it is clamped.

    Examples:
        >>> ExponentialTailWeight()(np.array([0.0, 0.00125, 0.01]))
        array([1.  , 0.75, 0.  ])
    """

    a: float = 400  # positive; the decay ends at f = 1 / a
    n: float = 2  # power of the decay, positive

    def __post_init__(self) -> None:
        check_numbers(type(self).__name__, '(0, inf)', a=self.a, n=self.n)

    def __call__(self, f: np.ndarray) -> np.ndarray:
        return np.maximum(1 - (self.a * f) ** self.n, 0)


@dataclass(frozen=True)
class GompertzTailWeight(TailWeight):
    """T(f) = 1 - a exp(-b exp(-c f)); defaults of the paper, LVIS v0.5.

    Examples:
        >>> GompertzTailWeight()(np.array([0.0, 0.1])).round(4)
        array([1., 0.])
    """

    a: float = 1  # depth of the decay, in (0, 1]
    b: float = 80  # displacement towards frequent classes, positive
    c: float = 3000  # steepness of the decay, positive

    def __post_init__(self) -> None:
        check_numbers(type(self).__name__, '(0, 1]', a=self.a)
        check_numbers(type(self).__name__, '(0, inf)', b=self.b, c=self.c)

    def __call__(self, f: np.ndarray) -> np.ndarray:
        return 1 - self.a * np.exp(-self.b * np.exp(-self.c * f))


@dataclass(frozen=True)
class InstanceCountTailWeight(ThresholdTailWeight):
    """T = 1 for classes with instance_count < lambda, a number of boxes.

    The rule of the authors' recipe for Open Images
    (https://github.com/tztztztztz/eqlv2, lambda 1652). The loss does not use
    its own ``frequency_threshold`` and ``tail_ratio`` then.

    Examples:
        >>> from mmdet_longtail.structures import ClassStatistics
        >>> statistics = ClassStatistics(
        ...     ('dog', 'ibex'), [90, 2], [120, 3], 100, 91
        ... )
        >>> InstanceCountTailWeight(100).is_tail(statistics, 0.0)
        array([False,  True])
    """

    instance_threshold: float  # lambda, 0 or more

    def __post_init__(self) -> None:
        threshold = self.instance_threshold
        check_numbers(
            type(self).__name__, '[0, inf)', instance_threshold=threshold
        )

    def is_tail(
        self, statistics: ClassStatistics, frequency_threshold: float
    ) -> np.ndarray:
        return statistics.instance_count < self.instance_threshold

    def describe(self, frequency_threshold: float) -> dict[str, float]:
        return {'instance_threshold': self.instance_threshold}


TAIL_WEIGHTS = (
    ThresholdTailWeight,
    ExponentialTailWeight,
    GompertzTailWeight,
    InstanceCountTailWeight,
)

"""Forms of EQL's T(f), the share of its negatives that a tail class is spared.

Tan et al., Equalization Loss for Long-Tailed Object Recognition, CVPR 2020,
section 4.4, Table 3 and Fig. 3. Each form maps the image_frequency f of tail
classes (C,) to T(f) (C,), 0..1; T(f) of all other classes is 0. A config
names the forms as ``tail_weight`` of a loss. A parameter out of its range
raises a LongTailError.
"""

from dataclasses import dataclass

import numpy as np

from mmdet_longtail.utils.checks import check_numbers


@dataclass(frozen=True)
class ThresholdTailWeight:
    """T(f) = 1 (Eq. 7), the paper's choice."""

    def __call__(self, f: np.ndarray) -> np.ndarray:
        return np.ones_like(f)


@dataclass(frozen=True)
class ExponentialTailWeight:
    """T(f) = 1 - (a f)^n, at least 0; the defaults are the paper's, LVIS v0.5.

    Beyond f = 1 / a the paper's formula is negative, which would weigh
    negatives more than 1; so it is clamped.
    """

    a: float = 400  # positive; the decay ends at f = 1 / a
    n: float = 2  # power of the decay, positive

    def __post_init__(self) -> None:
        check_numbers(type(self).__name__, '(0, inf)', a=self.a, n=self.n)

    def __call__(self, f: np.ndarray) -> np.ndarray:
        return np.maximum(1 - (self.a * f) ** self.n, 0)


@dataclass(frozen=True)
class GompertzTailWeight:
    """T(f) = 1 - a exp(-b exp(-c f)); defaults of the paper, LVIS v0.5."""

    a: float = 1  # depth of the decay, in (0, 1]
    b: float = 80  # displacement towards frequent classes, positive
    c: float = 3000  # steepness of the decay, positive

    def __post_init__(self) -> None:
        check_numbers(type(self).__name__, '(0, 1]', a=self.a)
        check_numbers(type(self).__name__, '(0, inf)', b=self.b, c=self.c)

    def __call__(self, f: np.ndarray) -> np.ndarray:
        return 1 - self.a * np.exp(-self.b * np.exp(-self.c * f))


TAIL_WEIGHTS = (ThresholdTailWeight, ExponentialTailWeight, GompertzTailWeight)

"""The forms of EQL's T(f) that a config can name.

Each is called with the image_frequency (C,) of the classes and lambda.
"""

from __future__ import annotations

import math

import numpy as np
from mmdet.registry import TASK_UTILS

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.structures import tail_weights


def check_positive(owner: object, **values: float) -> None:
    """Refuse parameters of a curve that are not positive numbers.

    Raises:
        LongTailError: Naming the first.
    """
    for name, value in values.items():
        if not (0 < value < math.inf):
            raise LongTailError(
                f'{type(owner).__name__}: {name} is {value}, expected a '
                'positive number'
            )


@TASK_UTILS.register_module()
class ThresholdTailWeight:
    """The paper's choice: see `tail_weights.threshold`."""

    def __call__(
        self, image_frequency: np.ndarray, frequency_threshold: float
    ) -> np.ndarray:
        return tail_weights.threshold(image_frequency, frequency_threshold)


@TASK_UTILS.register_module()
class ExponentialTailWeight:
    """See `tail_weights.exponential_decay`.

    Args:
        a (float): Where the decay ends, f = 1 / a. Defaults to 400, the
            paper's for LVIS v0.5.
        n (float): Its power. Defaults to 2, the paper's.

    Raises:
        LongTailError: If one is not positive.
    """

    def __init__(self, a: float = 400, n: float = 2) -> None:
        check_positive(self, a=a, n=n)
        self.a, self.n = a, n

    def __call__(
        self, image_frequency: np.ndarray, frequency_threshold: float
    ) -> np.ndarray:
        return tail_weights.exponential_decay(
            image_frequency, frequency_threshold, self.a, self.n
        )


@TASK_UTILS.register_module()
class GompertzTailWeight:
    """See `tail_weights.gompertz_decay`.

    Args:
        a (float): How far T(f) falls, above 0 and up to 1. Defaults to 1.
        b (float): Displaces the fall towards frequent classes. Defaults to
            80.
        c (float): How steep the fall is. Defaults to 3000; the defaults are
            the paper's for LVIS v0.5.

    Raises:
        LongTailError: If one is out of its range.
    """

    def __init__(self, a: float = 1, b: float = 80, c: float = 3000) -> None:
        check_positive(self, a=a, b=b, c=c)
        if a > 1:
            raise LongTailError(
                f'GompertzTailWeight: a is {a}, expected at most 1: T(f) '
                'would be negative'
            )
        self.a, self.b, self.c = a, b, c

    def __call__(
        self, image_frequency: np.ndarray, frequency_threshold: float
    ) -> np.ndarray:
        return tail_weights.gompertz_decay(
            image_frequency, frequency_threshold, self.a, self.b, self.c
        )


TAIL_WEIGHTS = (ThresholdTailWeight, ExponentialTailWeight, GompertzTailWeight)

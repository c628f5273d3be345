"""How much of a tail class EQL spares: the forms of T(f).

Tan et al., Equalization Loss for Long-Tailed Object Recognition, CVPR 2020,
section 4.4, Table 3 and Fig. 3. Needs numpy only, so that
``tools/class_statistics.py`` can draw them without torch.

All take the image_frequency f (C,) of the classes and lambda, and give T(f)
(C,), 0..1: 1 spares a class the whole gradient of other classes' objects, 0
nothing. The paper calls the decays weights "for the categories with frequency
under the threshold", so each of them is 0 from lambda on; lambda = 1 is the
whole curve.
"""

from __future__ import annotations

import numpy as np


def threshold(
    image_frequency: np.ndarray, frequency_threshold: float
) -> np.ndarray:
    """T(f) = 1 where f < lambda, else 0 (Eq. 7)."""
    return (image_frequency < frequency_threshold).astype(float)


def exponential_decay(
    image_frequency: np.ndarray,
    frequency_threshold: float,
    a: float,
    n: float,
) -> np.ndarray:
    """T(f) = 1 - (a f)^n, at least 0, where f < lambda.

    Beyond f = 1 / a the paper's formula is negative, which would weigh
    negatives more than 1; so it is clamped.
    """
    f = image_frequency
    decay = np.maximum(1 - (a * f) ** n, 0)
    return threshold(f, frequency_threshold) * decay


def gompertz_decay(
    image_frequency: np.ndarray,
    frequency_threshold: float,
    a: float,
    b: float,
    c: float,
) -> np.ndarray:
    """T(f) = 1 - a exp(-b exp(-c f)) where f < lambda."""
    f = image_frequency
    decay = 1 - a * np.exp(-b * np.exp(-c * f))
    return threshold(f, frequency_threshold) * decay

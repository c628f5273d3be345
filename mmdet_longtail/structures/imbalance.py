"""Whether the counts of a training set are long-tailed at all."""

from enum import Enum

import numpy as np

from mmdet_longtail.structures.class_statistics import ClassStatistics

# Below it nothing is suggested; VOC2012 has 16, COCO train2017 1,299.
MIN_IMBALANCE = 20
# A long tail has both; COCO's Gini coefficient is 0.56, that of LVIS 0.82.
LONG_TAIL_IMBALANCE = 100
LONG_TAIL_GINI = 0.6


class Balance(Enum):
    """How uneven the classes of a training set are."""

    BALANCED = 'not long-tailed'
    IMBALANCED = 'imbalanced, but not long-tailed'
    LONG_TAILED = 'long-tailed'


def imbalance(counts: np.ndarray) -> float:
    """Compute the largest count divided by the smallest one above 0.

    It is 1 where fewer than two classes have a count above 0.
    """
    present = counts[counts > 0]
    return float(present.max() / present.min()) if present.size else 1.0


def gini(counts: np.ndarray) -> float:
    """Compute the Gini coefficient: 0 all equal, towards 1 all in one class.

    G = sum over i of (2 i - C - 1) x_i / (C * sum of x), x rising, i = 1..C.
    It is 0 where all counts are 0.
    """
    x = np.sort(counts)
    C = len(x)
    i = np.arange(1, C + 1)
    return float(((2 * i - C - 1) * x).sum() / (C * max(x.sum(), 1)))


def balance_of(statistics: ClassStatistics) -> Balance:
    """Judge a training set by its image_count and its instance_count.

    Classes without a box count for the Gini coefficient only.
    """
    counts = statistics.instance_count, statistics.image_count
    largest = max(map(imbalance, counts))
    if largest < MIN_IMBALANCE:
        return Balance.BALANCED
    if (
        largest >= LONG_TAIL_IMBALANCE
        and gini(statistics.instance_count) >= LONG_TAIL_GINI
    ):
        return Balance.LONG_TAILED
    return Balance.IMBALANCED


def explain_balance(statistics: ClassStatistics) -> str:
    """Return the balance of a training set and its reason in a sentence."""
    balance = balance_of(statistics)
    num_present = np.count_nonzero(statistics.instance_count)
    if num_present < 2:
        return f'{balance.value}: {num_present} classes have a box'
    boxes, images = (
        ratio_text(imbalance(counts))
        for counts in (statistics.instance_count, statistics.image_count)
    )
    numbers = f'most : fewest is {boxes} by boxes and {images} by images'
    if balance is Balance.BALANCED:
        return f'{balance.value}: {numbers}, both below {MIN_IMBALANCE}'
    tail = f'{LONG_TAIL_IMBALANCE} and {LONG_TAIL_GINI:g}'
    limits = {
        Balance.IMBALANCED: f'a long tail has at least {tail}',
        Balance.LONG_TAILED: f'at least {tail}',
    }
    return (
        f'{balance.value}: {numbers}, the Gini coefficient is '
        f'{gini(statistics.instance_count):.2f} ({limits[balance]})'
    )


def ratio_text(ratio: float) -> str:
    """Format an imbalance, such as 3.5 or 3,150."""
    return f'{ratio:,.0f}' if ratio >= 100 else f'{ratio:.3g}'

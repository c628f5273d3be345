"""Whether a training set is long-tailed, on counts of several kinds."""

import numpy as np
import pytest
from count_sets import SETS, counted, even, needs_shared_data, statistics_of
from hypothesis import given
from hypothesis import strategies as st

from mmdet_longtail.structures.imbalance import (
    Balance,
    balance_of,
    explain_balance,
    gini,
    imbalance,
)


def test_gini_of_known_counts():
    """All boxes in one of C classes: (C - 1) / C."""
    counts = ([0, 0, 0, 9], [5, 5, 5], [1, 3], [0, 0])
    assert [gini(np.array(x)) for x in counts] == [0.75, 0, 0.25, 0]


@pytest.mark.parametrize(
    ('counts', 'expected'),
    [([1, 50, 10], 50), ([0, 4, 8], 2), ([0, 7], 1), ([0, 0], 1), ([3], 1)],
)
def test_imbalance_of_known_counts(counts, expected):
    assert imbalance(np.array(counts)) == expected


@pytest.mark.parametrize('name', SETS)
def test_balance_of_known_sets(name):
    counts, expected = SETS[name]
    statistics = statistics_of(*counts)
    assert balance_of(statistics) is expected
    assert explain_balance(statistics).startswith(expected.value + ':')


@needs_shared_data
@pytest.mark.parametrize('name', ['lvis_v0.5', 'lvis_v1', 'v3det'])
def test_balance_of_large_vocabularies(name):
    assert balance_of(counted(name)) is Balance.LONG_TAILED


@given(st.integers(1, 200), st.integers(1, 10**6))
def test_equal_counts_are_balanced(num_classes, count):
    statistics = statistics_of(*even(num_classes, count))
    assert balance_of(statistics) is Balance.BALANCED


def test_the_reason_has_the_numbers():
    sentence = explain_balance(statistics_of([902, 1045, 3150]))
    assert sentence == (
        'not long-tailed: most : fewest is 3.49 by boxes and 3.49 by images, '
        'both below 20'
    )
    assert '0 classes have a box' in explain_balance(statistics_of([0, 0]))

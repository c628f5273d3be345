"""Checks of numbers and choices, and errors with their source."""

import math

import pytest

from mmdet_longtail.errors import LongTailError, check, errors_of
from mmdet_longtail.utils.checks import check_choice, check_numbers


@pytest.mark.parametrize(
    ('interval', 'inside', 'outside'),
    [
        ('[0, 1)', [0, 0.5], [1, -0.1]),
        ('(0, 1]', [1, 1e-9], [0, 1.1]),
        ('(0, inf)', [1e-9, 1e9], [0, -1, math.inf]),
        ('[2, inf)', [2], [1.9, math.nan, '3', None, True]),
    ],
)
def test_numbers_inside_an_interval(interval, inside, outside):
    check_numbers('Loss', interval, **{f'x{v}': v for v in inside})
    for value in outside:
        with pytest.raises(LongTailError, match=r'Loss: x is .*expected a'):
            check_numbers('Loss', interval, x=value)
    with pytest.raises(LongTailError, match=r'^x is '):
        check_numbers('', interval, x=outside[0])


def test_choices():
    check_choice('Loss', 'key', 'a', 'a', 'b')
    with pytest.raises(LongTailError, match="key is 'c', expected 'a' or 'b'"):
        check_choice('Loss', 'key', 'c', 'a', 'b')


def test_errors_name_their_source():
    check(True, 'not raised')
    with pytest.raises(LongTailError, match=r'^a\.json: no list$'):
        with errors_of('a.json'):
            check([], 'no list')
    with pytest.raises(KeyError), errors_of('a.json'):
        raise KeyError('another error passes unchanged')

"""Validators of the numbers that a config or a command line gives."""

from __future__ import annotations

from numbers import Real
from typing import Any

from mmdet_longtail.errors import LongTailError


def check(holds: Any, message: str) -> None:
    """Raise a LongTailError with the message unless a condition holds."""
    if not holds:
        raise LongTailError(message)


def check_numbers(owner: str, interval: str, **values: Any) -> None:
    """Validate that values are numbers inside an interval.

    Args:
        owner (str): The class or option that has the values, for the message;
            '' for none.
        interval (str): In mathematical notation, such as '[0, 1)' for
            0 <= x < 1, or '(0, inf)'.
        values (Any): The values by their key.

    Raises:
        LongTailError: If a value is no number or lies outside the interval,
            naming the first.
    """
    low, high = map(float, interval[1:-1].split(','))
    for key, value in values.items():
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if (
            not is_number
            or not low <= value <= high
            or (value == low and interval[0] == '(')
            or (value == high and interval[-1] == ')')
        ):
            raise LongTailError(
                f'{owner}{owner and ": "}{key} is {value!r}, expected a '
                f'number in {interval}'
            )


def check_choice(owner: str, key: str, value: Any, *choices: str) -> None:
    """Validate that a value is one of several.

    Args:
        owner (str): The class that has the value, for the message.
        key (str): Its name in the config.
        value (Any): The value.
        *choices (str): Permitted values.

    Raises:
        LongTailError: The value is none of them.
    """
    if value not in choices:
        raise LongTailError(
            f'{owner}: {key} is {value!r}, expected '
            f'{" or ".join(map(repr, choices))}'
        )

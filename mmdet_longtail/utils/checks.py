"""Validators of what users write, with errors of one line."""

from numbers import Real
from typing import Any

from mmdet_longtail.errors import check


def check_numbers(owner: str, interval: str, **values: Any) -> None:
    """Validate that values are numbers inside an interval.

    Args:
        owner (str): The class or option that has the values, for the message;
            '' for none.
        interval (str): In mathematical notation, such as '[0, 1)' for
            0 <= x < 1, or '(0, inf)'.
        **values (Any): The values by their key.

    Raises:
        LongTailError: Naming the first value that is no number inside.
    """
    low, high = map(float, interval[1:-1].split(','))
    for key, value in values.items():
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        check(
            is_number
            and low <= value <= high
            and (value > low or interval[0] == '[')
            and (value < high or interval[-1] == ']'),
            f'{owner}{owner and ": "}{key} is {value!r}, expected a number in '
            f'{interval}',
        )


def check_choice(owner: str, key: str, value: Any, *choices: str) -> None:
    """Validate that an owner's value, named by its key, is a choice.

    Raises:
        LongTailError: If it is none of the choices.
    """
    check(
        value in choices,
        f'{owner}: {key} is {value!r}, expected '
        f'{" or ".join(map(repr, choices))}',
    )

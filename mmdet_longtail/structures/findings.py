"""Faults that are found before a training starts."""

from enum import IntEnum
from typing import NamedTuple


class Severity(IntEnum):
    """Consequence of a fault; a larger value is worse."""

    NOTE = 0  # a fact worth knowing
    WARNING = 1  # the training runs, with another result than expected
    ERROR = 2  # the training fails, or its result is wrong


class Finding(NamedTuple):
    """A fault, or a fact, in one line.

    The message names the file, class or config key, what was expected, what
    was found, and the way out. Faults of one kind in one file are one
    finding, with their number and the first of them.
    """

    severity: Severity
    message: str

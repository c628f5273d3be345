"""Faults that are found before a training starts."""

import warnings
from collections.abc import Iterable
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


def warn_about(findings: Iterable[Finding], stacklevel: int = 2) -> None:
    """Issue a Python warning per finding that is a warning or an error."""
    for finding in findings:
        if finding.severity >= Severity.WARNING:
            warnings.warn(finding.message, stacklevel=stacklevel + 1)

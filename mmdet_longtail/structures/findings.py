"""Faults that are found before a training starts."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import NamedTuple

from mmdet_longtail.errors import LongTailError


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


def raise_or_log(
    findings: Iterable[Finding], log: Callable[[str], None]
) -> None:
    """Raise the first error; without one, log the warnings.

    Raises:
        LongTailError: With the number of the other errors.
    """
    found = list(findings)
    errors = [f.message for f in found if f.severity is Severity.ERROR]
    if errors:
        others = f'; {len(errors) - 1} more by `longtail check CONFIG`'
        raise LongTailError(errors[0] + others * (len(errors) > 1))
    for finding in found:
        if finding.severity is Severity.WARNING:
            log(finding.message)


def print_findings(findings: Iterable[Finding]) -> Severity:
    """Print findings, one per line, and return the worst severity."""
    worst = Severity.NOTE
    number: Counter[Severity] = Counter()
    for severity, message in findings:
        print(f'{severity.name.lower()}: {message}')
        worst = max(worst, severity)
        number[severity] += 1
    for severity in (Severity.ERROR, Severity.WARNING):
        name, times = severity.name.lower(), number[severity]
        print(f'{times} {name}{"s" * (times != 1)}')
    return worst

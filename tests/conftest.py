"""Fixtures of more than one test file."""

import signal
from importlib.util import find_spec

import pytest
from tool_runs import call_tool

__all__ = ['call_tool']

# `make test-classification` has an environment for these.
collect_ignore = [] if find_spec('mmpretrain') else ['classification']


@pytest.fixture(autouse=True)
def signals():
    """Restore the handlers that a training in this process has set.

    A process pool ends its workers by SIGTERM, and would wait forever for
    forks that have inherited a handler.
    """
    kept = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)

import signal

import pytest


@pytest.fixture(autouse=True)
def signals():
    """Restore the handlers that a training in this process has set."""
    kept = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)

"""One training per work directory, whatever became of the last one."""

import os
import signal
import subprocess
import sys
from multiprocessing import get_context

import pytest
from tool_runs import environment

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.utils.locks import locked

HOLD = """
import os, sys, time
from mmdet_longtail.utils.locks import locked
with locked(sys.argv[1]):
    if not os.fork():  # as a worker that outlives its training
        time.sleep(60)
    print('held', flush=True)
    time.sleep(60)
"""


def lock_elsewhere(folder):
    context = get_context('fork')
    process = context.Process(target=_exit_by_lock, args=(folder,))
    process.start()
    process.join(60)
    return process.exitcode


def _exit_by_lock(folder):
    try:
        with locked(folder):
            os._exit(0)
    except LongTailError:
        os._exit(1)


def test_another_process_waits_for_the_end(tmp_path):
    with locked(tmp_path):
        with locked(tmp_path):
            assert lock_elsewhere(tmp_path) == 1
        assert lock_elsewhere(tmp_path) == 1
        (tmp_path / 'other').mkdir()
        assert lock_elsewhere(tmp_path / 'other') == 0
    assert lock_elsewhere(tmp_path) == 0


def test_a_killed_process_and_its_workers_hold_nothing(tmp_path):
    process = subprocess.Popen(
        [sys.executable, '-c', HOLD, tmp_path],
        env=environment(),
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    assert process.stdout.readline() == 'held\n'
    with pytest.raises(LongTailError, match=f'process {process.pid} on'):
        with locked(tmp_path):
            pass
    process.kill()
    process.wait()
    with locked(tmp_path):
        os.killpg(process.pid, signal.SIGKILL)

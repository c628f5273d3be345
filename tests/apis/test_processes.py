import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console
from tool_runs import environment

from mmdet_longtail.apis import processes
from mmdet_longtail.apis.processes import (
    exclusive,
    progress,
    run_with_progress,
)
from mmdet_longtail.errors import LongTailError

TOOL = """
import sys, time
from pathlib import Path
from mmdet_longtail.apis.processes import exclusive, started
child = (
    'import signal, time\\n'
    'signal.signal(signal.SIGTERM, signal.SIG_IGN)\\n'
    'print("ready", flush=True)\\n'
    'time.sleep(60)'
)
with exclusive(Path(sys.argv[1])) as lock:
    with started(['-c', child], pass_fds=[lock.fileno()]) as process:
        print(process.pid, flush=True)
        time.sleep(60)
"""


def test_the_child_of_a_killed_tool_holds_the_lock(tmp_path):
    tool = subprocess.Popen(
        [sys.executable, '-c', TOOL, tmp_path],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    lines = {tool.stdout.readline().strip() for _ in range(2)}
    (child,) = map(int, lines - {'ready'})
    tool.kill()
    tool.wait()
    with pytest.raises(LongTailError, match='another'):
        with exclusive(tmp_path):
            pass
    os.kill(child, signal.SIGKILL)
    tool.stdout.read()  # until the child is gone
    with exclusive(tmp_path):
        pass


LOG = '2026/11/29 03:00:00 - mmengine - INFO - '


@pytest.mark.parametrize(
    ('line', 'text'),
    [
        (
            f'{LOG}Epoch(train)  [3][150/200]  lr: 2.0e-02  '
            'eta: 1 day, 0:12:33  time: 0.1  data_time: 0.0  loss: 1.0',
            'Epoch(train) [3][150/200] eta: 1 day, 0:12:33',
        ),
        (
            f'{LOG}Iter(train) [ 50/900]  lr: 2.0e-02  eta: 0:02:33  time: 1',
            'Iter(train) [ 50/900] eta: 0:02:33',
        ),
        (f'{LOG}Epoch(val)  [3][5/20]    time: 1', 'Epoch(val) [3][5/20]'),
        (f'{LOG}Saving checkpoint at 3 epochs', ''),
    ],
)
def test_progress(line, text):
    assert progress(line) == text


@pytest.mark.parametrize(
    ('code', 'expected'),
    [
        ('raise SystemExit("error: no such file")', 'failed: no such file'),
        ('print("words"); raise SystemExit(3)', 'failed: exit status 3'),
    ],
)
def test_a_failed_process(tmp_path, capsys, code, expected):
    log_path = tmp_path / 'run' / 'log.txt'
    with pytest.raises(LongTailError, match=expected):
        run_with_progress(['-c', code], 'training', log_path, Console())
    assert log_path.read_text() in ('error: no such file\n', 'words\n')
    assert capsys.readouterr().err in ('', 'words\n')


def test_progress_without_a_terminal(tmp_path, capsys, monkeypatch):
    lines = [f'{LOG}Epoch(train)  [1][{i}/4]  lr: 1e-3' for i in range(4)]
    times = iter([0, 30, 60, 61, 120, 121])
    clock = SimpleNamespace(monotonic=lambda: next(times))
    monkeypatch.setattr(processes, 'time', clock)
    code = f'print({chr(10).join(lines)!r})'
    log_path = tmp_path / 'log.txt'
    run_with_progress(['-c', code], 'training', log_path, Console(width=200))
    assert capsys.readouterr().out.splitlines() == [
        '      Epoch(train) [1][1/4]',
        '      Epoch(train) [1][3/4]',
    ]

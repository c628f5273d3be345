"""Tools in a process of their own, or in this one to save time."""

import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from types import ModuleType
from typing import Any

import pytest
from mmengine.logging import MMLogger

from mmdet_longtail.cli.main import import_tool

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / 'tools'


def command(tool: str, *args: Any) -> list[str]:
    return [sys.executable, str(TOOLS / tool), *map(str, args)]


def environment() -> dict[str, str]:
    paths = [str(ROOT), os.environ.get('PYTHONPATH', '')]
    return os.environ | {
        'OMP_NUM_THREADS': '1',
        'PYTHONPATH': os.pathsep.join(filter(None, paths)),
    }


def run_process(arguments: Sequence[Any], cwd: Any) -> CompletedProcess[str]:
    """Run a command and return the finished process, with stdout, stderr."""
    return subprocess.run(
        list(map(str, arguments)),
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=900,
    )


def run_tool(tool: str, *args: Any, cwd: Any) -> CompletedProcess[str]:
    """Run a tool in a process of its own; it has to succeed."""
    process = run_process(command(tool, *args), cwd)
    assert process.returncode == 0, process.stdout + process.stderr
    return process


def refused(outcome: subprocess.CompletedProcess) -> str:
    """Return the one line of an error, without its 'error: '."""
    err = outcome.stderr
    assert outcome.returncode == 1, err
    lines = [line for line in err.splitlines() if line.startswith('error: ')]
    assert len(lines) == 1, err
    assert 'Traceback' not in err
    assert err.endswith(f'{lines[0]}\n')
    return lines[0].removeprefix('error: ')


def load_tool(tool: str) -> ModuleType:
    """Import a tool as a module."""
    return import_tool(TOOLS / tool)


@pytest.fixture
def call_tool(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., CompletedProcess[str]]:
    """Run a tool in this process, and return what a process would."""

    def call(
        tool: str, *args: Any, cwd: Path = tmp_path
    ) -> CompletedProcess[str]:
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, 'argv', [tool, *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(TOOLS / tool), run_name='__main__')
        # Its handlers write to a stderr that the next test does not have.
        MMLogger._instance_dict.clear()
        status: Any = caught.value.code or 0
        return CompletedProcess(tool, status, *capsys.readouterr())

    return call

"""Running the tools as a person does, or in this process to save time."""

import importlib.util
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.logging import MMLogger

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / 'tools'


def command(tool, *args):
    return [sys.executable, str(TOOLS / tool), *map(str, args)]


def environment():
    paths = [str(ROOT), os.environ.get('PYTHONPATH', '')]
    return os.environ | {
        'OMP_NUM_THREADS': '1',
        'PYTHONPATH': os.pathsep.join(filter(None, paths)),
    }


def run_process(arguments, cwd):
    """Run a command and give the finished process, with out and err."""
    return subprocess.run(
        list(map(str, arguments)),
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=900,
    )


def run_tool(tool, *args, cwd):
    """Run a tool in a process of its own; it has to succeed."""
    process = run_process(command(tool, *args), cwd)
    assert process.returncode == 0, process.stdout + process.stderr
    return process


def load_tool(tool):
    """Import a tool as a module."""
    name = f'tools_{Path(tool).stem}'
    spec = importlib.util.spec_from_file_location(name, TOOLS / tool)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def call_tool(monkeypatch, tmp_path, capsys):
    """Run a tool in this process, and give what a process would."""

    def call(tool, *args, cwd=tmp_path):
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, 'argv', [tool, *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(TOOLS / tool), run_name='__main__')
        # Its handlers write to a stderr that the next test does not have.
        MMLogger._instance_dict.clear()
        return subprocess.CompletedProcess(
            tool, caught.value.code or 0, *capsys.readouterr()
        )

    return call

import os
import signal
import time

import pytest

from mmdet_longtail.apis.fork_server import ForkServer


@pytest.fixture
def server():
    with ForkServer() as server:
        yield server


def run(server, tmp_path, code, *args):
    path = tmp_path / 'program.py'
    path.write_text(code)
    with server.started([str(path), *args]) as process:
        lines = list(process.stdout)
    return lines, process.returncode


def test_programs_run_one_after_the_other(server, tmp_path):
    code = 'import sys; print(*sys.argv[1:]); sys.exit(int(sys.argv[1]))'
    assert run(server, tmp_path, code, '0', 'a') == (['0 a\n'], 0)
    assert run(server, tmp_path, code, '3', 'b c') == (['3 b c\n'], 3)
    code = 'import sys, os\nprint("x", file=sys.stderr)\nos.abort()'
    assert run(server, tmp_path, code) == (['x\n'], -signal.SIGABRT)
    code = 'print(__name__, "torch" in __import__("sys").modules, end="")'
    assert run(server, tmp_path, code) == (['__main__ True'], 0)
    (tmp_path / 'neighbor.py').write_text('print("found")')
    assert run(server, tmp_path, 'import neighbor') == (['found\n'], 0)
    lines, status = run(server, tmp_path, 'raise ValueError(7)')
    assert (lines[-1], status) == ('ValueError: 7\n', 1)


def test_a_program_ends_with_its_server(server, tmp_path):
    code = 'import os, time; print(os.getpid(), flush=True); time.sleep(60)'
    path = tmp_path / 'program.py'
    path.write_text(code)
    with server.started([str(path)]) as process:
        child = int(next(process.stdout))
    server.process.kill()
    for _ in range(200):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            break
        time.sleep(0.1)
    else:
        pytest.fail('the program runs on')


def test_a_server_that_is_gone_is_a_failure(server, tmp_path):
    with server.started(['missing.py']) as process:
        server.process.kill()
        list(process.stdout)
    assert process.returncode == -signal.SIGKILL


def test_a_server_that_is_gone_is_started_again(server, tmp_path):
    server.process.kill()
    server.process.wait()
    assert run(server, tmp_path, 'print(1)') == (['1\n'], 0)

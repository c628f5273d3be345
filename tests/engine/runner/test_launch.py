"""The scripts that start several processes, with gloo on this machine."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from survival import iterations, last, write_run
from tiny import make_data, write_config
from tool_runs import ROOT, TOOLS, environment

from mmdet_longtail.engine.runner.launch import LAUNCHERS, set_up_launcher
from mmdet_longtail.errors import LongTailError

BAGS = """
_base_ = 'softmax.py'
default_hooks = dict(class_statistics=dict(type='ClassStatisticsHook'))
model = dict(roi_head=dict(bbox_head=dict(loss_cls=dict(
    _delete_=True, type='BalancedGroupSoftmaxLoss', num_classes=4,
    bin_edges=(2, 3)))))
"""


def start_script(script, *args, cwd, log, **variables):
    """Start a shell script in a process group of its own."""
    with open(log, 'a') as file:
        return subprocess.Popen(
            [str(TOOLS / script), *map(str, args)],
            cwd=cwd,
            env=environment()
            | {'PYTHON': sys.executable}
            | {name: str(value) for name, value in variables.items()},
            start_new_session=True,
            stdout=file,
            stderr=subprocess.STDOUT,
        )


def run_script(script, *args, cwd, log, status=0, **variables):
    """Run a shell script, and give all that it says."""
    process = start_script(script, *args, cwd=cwd, log=log, **variables)
    assert process.wait(180) == status, Path(log).read_text()[-3000:]
    return Path(log).read_text()


def free_port():
    with socket.socket() as one:
        one.bind(('127.0.0.1', 0))
        return one.getsockname()[1]


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """BAGS, trained by two ranks of one machine."""
    folder = tmp_path_factory.mktemp('trained')
    make_data(folder / 'data')
    write_config(folder / 'softmax.py', folder / 'data')
    (folder / 'bags.py').write_text(BAGS)
    arguments = ('bags.py', 2, '--work-dir', 'one')
    run_script('dist_train.sh', *arguments, cwd=folder, log=folder / 'one.log')
    return folder


def test_two_ranks_train_and_test(trained):
    log = (trained / 'one.log').read_text()
    assert log.count('Class statistics: 4 classes') == 1
    assert 'Traceback' not in log
    assert (trained / 'one' / 'metrics.json').is_file()
    log = run_script(
        'dist_test.sh',
        *('bags.py', 'one/epoch_1.pth', 2, '--json', 'tested.json'),
        cwd=trained,
        log=trained / 'test.log',
    )
    assert 'coco/bbox_mAP' in log
    assert (trained / 'tested.json').is_file()


def test_two_machines_are_two_ranks(trained):
    machines = [
        start_script(
            'dist_train.sh',
            *('bags.py', 1, '--work-dir', 'two'),
            cwd=trained,
            log=trained / f'machine{rank}.log',
            NNODES=2,
            NODE_RANK=rank,
            MASTER_ADDR='127.0.0.1',
            PORT=port,
        )
        for port in [free_port()]
        for rank in range(2)
    ]
    for machine in machines:
        assert machine.wait(180) == 0
    one, two = (
        torch.load(trained / name / 'epoch_1.pth', weights_only=True)
        for name in ('one', 'two')
    )
    for name, weight in one['state_dict'].items():
        assert torch.equal(weight, two['state_dict'][name]), name


@pytest.mark.parametrize('number', [signal.SIGUSR1, signal.SIGTERM])
def test_ranks_that_are_asked_to_stop_say_so(tmp_path, number):
    config = write_run(tmp_path, find_unused_parameters=True)
    log = tmp_path / 'run.log'
    arguments = (config, 2, '--work-dir', tmp_path / 'run')
    process = start_script('dist_train.sh', *arguments, cwd=tmp_path, log=log)
    until = time.monotonic() + 120
    while process.poll() is None and iterations(tmp_path / 'run') < 3:
        assert time.monotonic() < until
        time.sleep(0.05)
    os.killpg(process.pid, number)
    assert process.wait(60) == 75, log.read_text()[-3000:]
    text = log.read_text()
    assert 'Preempted' in text
    assert 'Traceback' not in text
    assert 3 <= last(tmp_path / 'run')['meta']['iter'] < 60


def test_a_wrong_path_is_one_line_of_each_rank(tmp_path):
    log = run_script(
        'dist_train.sh',
        *('missing.py', 2),
        cwd=tmp_path,
        log=tmp_path / 'log',
        status=1,
    )
    assert 'error: missing.py: no such config' in log
    assert 'Traceback' not in log


@pytest.mark.parametrize(
    'script',
    ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'slurm_test.sh'],
)
def test_a_script_without_arguments_says_its_usage(script, tmp_path):
    log = run_script(script, cwd=tmp_path, log=tmp_path / 'log', status=2)
    assert log.startswith(f'usage: {TOOLS / script} ')
    assert log.count('\n') == 1


@pytest.mark.parametrize('script', ['slurm_train.sh', 'slurm_test.sh'])
def test_a_host_without_slurm(script, tmp_path):
    programs = tmp_path / 'bin'
    programs.mkdir()
    for name in ('bash', 'dirname'):
        (programs / name).symlink_to(shutil.which(name))
    log = run_script(
        script,
        *('debug', 'job', 'config.py', 'work_dir'),
        cwd=tmp_path,
        log=tmp_path / 'log',
        status=1,
        PATH=programs,
        CHECK=0,
    )
    assert log.startswith('error: srun is not installed')
    assert log.count('\n') == 1


@pytest.mark.parametrize('launcher', ['pytorch', 'slurm', 'mpi'])
def test_a_launcher_that_started_nothing(launcher, monkeypatch):
    for name in LAUNCHERS[launcher][0]:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(LongTailError, match=f'^--launcher {launcher}: '):
        set_up_launcher(Config(), launcher)
    assert not torch.distributed.is_initialized()


def test_the_import_starts_no_process_group():
    program = (
        'import mmdet_longtail, torch; '
        'assert not torch.distributed.is_initialized()'
    )
    subprocess.run(
        [sys.executable, '-c', program],
        cwd=ROOT,
        env=environment()
        | {'RANK': '0', 'WORLD_SIZE': '2', 'LOCAL_RANK': '0'}
        | {'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': '1'},
        check=True,
        timeout=120,
    )

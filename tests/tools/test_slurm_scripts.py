"""What Slurm launches, on the Slurm of .ci/one_node_slurm."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from survival import assert_same_end, iterations, write_run
from tool_runs import TOOLS, environment

pytestmark = pytest.mark.slurm

PARTITIONS = ['debug', 'gpu', 'all']


def variables(**more):
    """Name the node's address: its second name is no host."""
    return (
        environment()
        | {'PYTHON': sys.executable, 'MASTER_ADDR': '127.0.0.1'}
        | {name: str(value) for name, value in more.items()}
    )


@pytest.fixture(scope='module', autouse=True)
def slurm():
    """Skip without the Slurm that the tests are written for."""
    if not os.environ.get('SLURM_CONF') or not shutil.which('sinfo'):
        pytest.skip('no Slurm: `make test-slurm` starts one')
    found = say('sinfo', '--noheader', '--format', '%R').split()
    assert set(found) == set(PARTITIONS), found


def say(*command):
    """Run a command of Slurm, and give what it says."""
    process = subprocess.run(
        command, capture_output=True, text=True, timeout=60
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def run_script(script, *args, cwd, status=0, **settings):
    """Run a shell script, and give all that it says."""
    process = subprocess.run(
        [str(TOOLS / script), *map(str, args)],
        cwd=cwd,
        env=variables(**settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=180,
    )
    assert process.returncode == status, process.stdout[-3000:]
    return process.stdout


def state(job):
    return say('squeue', '--noheader', '--job', job, '--format', '%T').strip()


def wait(condition, seconds=120):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, say('squeue')
        time.sleep(0.2)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A config of six iterations, trained by two ranks on one node."""
    folder = tmp_path_factory.mktemp('run')
    short = {'train_cfg.max_epochs': 2, 'train_cfg.val_interval': 2}
    config = write_run(folder, find_unused_parameters=True, **short)
    run_script(
        'slurm_train.sh',
        *('debug', 'train', config, folder / 'debug'),
        cwd=folder,
        GPUS=2,
    )
    assert (folder / 'debug' / 'metrics.json').is_file()
    return folder


@pytest.mark.parametrize(
    ('partition', 'per_node'), [('gpu', 2), ('all', 1)], ids=['gpus', 'nodes']
)
def test_where_the_two_ranks_are_does_not_matter(run, partition, per_node):
    settings = dict(GPUS=2, GPUS_PER_NODE=per_node, CPUS_PER_TASK=1)
    if partition == 'all':  # One of its nodes has no GPUs.
        settings |= dict(SRUN_ARGS='--gres none --nodes 2')
    run_script(
        'slurm_train.sh',
        *(partition, 'train', 'run.py', partition),
        cwd=run,
        **settings,
    )
    assert_same_end(run / 'debug', run / partition)


def test_slurm_test(run):
    checkpoint = Path((run / 'debug' / 'last_checkpoint').read_text())
    log = run_script(
        'slurm_test.sh',
        *('debug', 'test', 'run.py', checkpoint, '--json', 'tested.json'),
        cwd=run,
        GPUS=2,
    )
    assert 'coco/bbox_mAP' in log
    assert (run / 'tested.json').is_file()


def test_a_partition_that_is_not_there(run):
    log = run_script(
        'slurm_train.sh',
        *('nowhere', 'train', 'run.py', 'nowhere'),
        cwd=run,
        status=1,
        GPUS=2,
    )
    assert 'nvalid partition' in log
    assert 'Traceback' not in log


def test_a_job_is_requeued_until_it_is_finished(tmp_path):
    config = write_run(tmp_path, find_unused_parameters=True)
    ranks = ('--ntasks=2', '--ntasks-per-node=2', '--cpus-per-task=1')

    def submit(name):
        script = str(TOOLS / 'slurm_train.sbatch')
        process = subprocess.run(
            [
                *('sbatch', '--parsable', *ranks, '--gres=none'),
                *(f'--output={tmp_path / name}.log', script, config, name),
            ],
            cwd=tmp_path,
            env=variables(TOOLS=TOOLS),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert process.returncode == 0, process.stderr
        return process.stdout.strip()

    whole = submit('whole')
    stopped = submit('stopped')
    for _ in range(2):
        steps = iterations(tmp_path / 'stopped') + 5
        wait(lambda steps=steps: iterations(tmp_path / 'stopped') >= steps)
        say('scancel', '--signal=USR1', stopped)
        wait(lambda: state(stopped) == 'PENDING')
        wait(lambda: state(stopped) == 'RUNNING')
    wait(lambda: not state(whole) and not state(stopped))
    log = (tmp_path / 'stopped.log').read_text()
    assert log.count('Preempted') == 2
    assert_same_end(tmp_path / 'whole', tmp_path / 'stopped')

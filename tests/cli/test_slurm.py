"""tools/ablate.py --launcher slurm, in a Slurm that answers."""

import csv
import json
import os
import shutil
import subprocess
import time

import pytest
import torch
from tiny import write_two_stages
from tool_runs import command, run_process

LOSS_WEIGHT = 'model.roi_head.bbox_head.loss_cls.loss_weight'


def slurm_answers():
    if shutil.which('sinfo') is None:
        return False
    return subprocess.run(['sinfo'], capture_output=True).returncode == 0


pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(not slurm_answers(), reason='no Slurm answers here'),
]


WAIT_HOOK = """
import pathlib
import time
from mmdet.registry import HOOKS
from mmengine.hooks import Hook

@HOOKS.register_module()
class WaitHook(Hook):
    def after_train_epoch(self, runner):
        while not pathlib.Path('go').exists():
            time.sleep(0.05)
"""
WAITING = """
_base_ = 'softmax.py'
custom_imports = dict(imports=['mmdet_longtail', 'wait_hook'])
custom_hooks = [dict(type='WaitHook', priority='LOWEST')]
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv('PYTHONPATH', str(tmp_path), prepend=os.pathsep)
    (tmp_path / 'wait_hook.py').write_text(WAIT_HOOK)
    (tmp_path / 'waiting.py').write_text(WAITING)
    yield write_two_stages(tmp_path)
    for job in jobs(tmp_path):
        subprocess.run(['scancel', job])


def tasks(project):
    path = project / 'grid' / 'slurm' / 'tasks.json'
    return json.loads(path.read_text()) if path.exists() else {}


def jobs(project):
    return {task.partition('_')[0] for task in tasks(project).values()}


def call(project, *args):
    arguments = command('ablate.py', *args, '--work-dir', 'grid')
    return run_process(
        [*arguments, '--launcher', 'slurm', '--max-jobs', '2'], project
    )


def wait_until(is_so, seconds=300):
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(1)


def wait_for_the_end(project):
    def is_empty():
        queue = subprocess.run(
            ['squeue', '--noheader', '--array', '--format', '%i'],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        return not set(queue) & set(tasks(project).values())

    wait_until(is_empty)


def weights(path):
    return torch.load(path, weights_only=True)['state_dict']


def test_a_grid_with_a_second_stage_survives_a_preemption(project):
    bags = project / 'bags.py'
    bags.write_text(bags.read_text().replace('softmax.py', 'waiting.py'))
    grid = ('waiting.py', 'bags.py', '--cfg-options', 'train_cfg.max_epochs=2')
    first = call(project, *grid)
    assert first.returncode == 0, first.stdout + first.stderr
    assert first.stdout.count('submitted 1 as job') == 2
    assert '  waiting_seed=0: not trained yet' in first.stdout
    given = tasks(project)
    run = project / 'grid' / 'waiting_seed=0'
    wait_until((run / 'last_checkpoint').exists)

    second = call(project, *grid)
    assert second.returncode == 0, second.stdout + second.stderr
    assert 'submitted' not in second.stdout
    assert (
        f'  waiting_seed=0: running, {given["waiting_seed=0"]}, Epoch(train) ['
        in second.stdout
    )
    assert f'pending, {given["bags_seed=0"]}' in second.stdout
    assert tasks(project) == given

    subprocess.run(
        ['scancel', '--signal=USR1', given['waiting_seed=0']], check=True
    )
    time.sleep(2)  # until the signal has arrived
    (project / 'go').touch()
    wait_for_the_end(project)
    assert 'resumed epoch' in (run / 'log.txt').read_text()
    assert (run / 'epoch_2.pth').is_file()

    third = call(project, *grid)
    assert third.returncode == 0, third.stdout + third.stderr
    assert third.stdout.count(': finished') == 2
    assert 'submitted' not in third.stdout
    with open(project / 'grid' / 'ablation.csv') as file:
        rows = list(csv.DictReader(file))
    assert [row['config'] for row in rows] == ['waiting.py', 'bags.py']
    assert tasks(project) == given

    # Only the classifier learns after the base, and from where it ended.
    stage = weights(project / 'grid' / 'bags_seed=0' / 'epoch_2.pth')
    base = weights(run / 'epoch_2.pth')
    assert torch.equal(
        stage['backbone.conv1.weight'], base['backbone.conv1.weight']
    )


def test_what_failed_or_was_cancelled_is_submitted_again(project):
    # The first makes an infinite loss.
    grid = ('bags.py', '--set', LOSS_WEIGHT, '1e39', '0.5')
    refused = call(project, *grid, '--partition', 'nowhere')
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert line.startswith('error: sbatch failed: ')
    assert 'invalid partition specified: nowhere' in line
    assert not tasks(project)

    assert call(project, *grid).returncode == 0
    given = tasks(project)
    cancelled = 'bags_loss_weight=0.5_seed=0'
    subprocess.run(['scancel', given[cancelled]], check=True)
    here = run_process(
        command('ablate.py', *grid, '--work-dir', 'grid'), project
    )
    assert here.returncode == 1
    assert 'is in the queue of Slurm as' in here.stderr
    wait_for_the_end(project)

    seen = call(project, *grid, '--collect')
    assert seen.returncode == 1
    assert tasks(project) == given
    failed = 'bags_loss_weight=1e+39_seed=0'
    assert f'failed: {failed}: ' in seen.stderr
    assert 'lower the learning rate' in seen.stderr
    assert f'grid/{failed}/log.txt' in seen.stdout
    assert f'failed: {cancelled}: ' in seen.stderr

    again = call(project, *grid)
    assert again.returncode == 0, again.stderr
    assert 'submitted 2 as job' in again.stdout
    wait_for_the_end(project)
    seen = call(project, *grid, '--collect')
    assert f'  {cancelled}: finished' in seen.stdout
    assert '| bags_loss_weight=0.5 ' in seen.stdout


def test_a_run_on_two_ranks(project):
    # As with two GPUs, in a partition that has none.
    grid = ('softmax.py', '--gpus', 2, '--sbatch-args=--gres=none')
    given = call(project, *grid)
    assert given.returncode == 0, given.stdout + given.stderr
    wait_for_the_end(project)
    log = (project / 'grid' / 'softmax_seed=0' / 'log.txt').read_text()
    assert 'GPU number: 2' in log
    script = project / 'grid' / 'commands' / 'softmax_seed=0.sh'
    where, line = script.read_text().splitlines()
    srun = 'srun --nodes=1 --ntasks=2 --gres=gpu:2 bash'
    path = 'grid/commands/softmax_seed=0.sh'
    assert where == f'# In {project}, by {srun} {path}:'
    assert '--resume auto --launcher slurm --cfg-options runner_type=' in line
    assert ': finished' in call(project, *grid).stdout

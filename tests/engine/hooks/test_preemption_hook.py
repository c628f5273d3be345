"""SIGTERM in a real training: of any script, in a validation, of one rank."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mmdet
import pytest
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import RUNNERS
from survival import (
    NO_WORKERS,
    SHORT,
    assert_same_end,
    finish,
    iterations,
    last,
    write_run,
)
from tool_runs import command, environment

MMDET_TRAIN = Path(mmdet.__file__).parent / '.mim/tools/train.py'


def run_script(script, config, work_dir, **kwargs):
    return subprocess.Popen(
        [
            sys.executable,
            script,
            config,
            '--work-dir',
            work_dir,
            '--resume',
            'auto',
        ],
        env=environment(),
        start_new_session=True,
        text=True,
        stdout=open(f'{work_dir}.log', 'a'),
        stderr=subprocess.STDOUT,
        **kwargs,
    )


@pytest.mark.parametrize('script', ['ours', "mmdet's"])
def test_any_script_stops_and_goes_on(tmp_path, script):
    script = command('train.py')[1] if script == 'ours' else MMDET_TRAIN
    config = write_run(tmp_path, **SHORT)
    finish(config, tmp_path / 'whole')
    stopped = tmp_path / 'stopped'
    process = run_script(script, config, stopped)
    while process.poll() is None and iterations(stopped) < 5:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(60) == 75
    log = Path(f'{stopped}.log').read_text()
    assert 'Preempted' in log
    assert 'Traceback' not in log
    assert 5 <= last(stopped)['meta']['iter'] < 18
    assert run_script(script, config, stopped).wait(120) == 0
    assert_same_end(tmp_path / 'whole', stopped)


class AskInValidation(Hook):
    def before_val(self, runner):
        os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    ('by_epoch', 'interval', 'stopped_at'), [(True, 1, 6), (False, 4, 7)]
)
def test_in_a_validation_it_stops_if_all_is_saved(
    tmp_path, by_epoch, interval, stopped_at
):
    config = Config.fromfile(write_run(tmp_path, **SHORT))
    config.train_cfg.val_interval = 1
    config.default_hooks.checkpoint.by_epoch = by_epoch
    config.default_hooks.checkpoint.interval = interval
    for split in ('train', 'val'):
        config[f'{split}_dataloader'].update(NO_WORKERS)
    config.work_dir = str(tmp_path / 'run')
    runner = RUNNERS.build(config)
    runner.register_hook(AskInValidation())
    with pytest.raises(SystemExit) as caught:
        runner.train()
    assert caught.value.code == 75
    assert last(tmp_path / 'run')['meta']['iter'] == stopped_at


def run_two_ranks(config, work_dir):
    """Start torchrun, and give its process."""
    options = ['--resume', 'auto', '--launcher', 'pytorch']
    script = command('train.py', config, '--work-dir', work_dir, *options)[1:]
    runner = ['-m', 'torch.distributed.run', '--standalone']
    with open(f'{work_dir}.log', 'a') as log:
        return subprocess.Popen(
            [sys.executable, *runner, '--nproc-per-node', '2', *script],
            env=environment(),
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def ranks_of(launcher):
    """Find the processes that a launcher has started."""
    path = f'/proc/{launcher.pid}/task/{launcher.pid}/children'
    with open(path) as file:
        return list(map(int, file.read().split()))


@pytest.mark.slow
@pytest.mark.parametrize('asked', [0, 1])
def test_one_of_two_ranks_is_asked(tmp_path, asked):
    config = write_run(tmp_path, find_unused_parameters=True)
    whole, stopped = tmp_path / 'whole', tmp_path / 'stopped'
    assert run_two_ranks(config, whole).wait(180) == 0
    launcher = run_two_ranks(config, stopped)
    while launcher.poll() is None and iterations(stopped) < 10:
        time.sleep(0.01)
    os.kill(ranks_of(launcher)[asked], signal.SIGTERM)
    assert launcher.wait(60) == 1
    with open(f'{stopped}.log') as log:
        text = log.read()
    assert text.count('exitcode  : 75') == 2, text[-3000:]
    assert last(stopped)['meta']['iter'] < 30
    assert run_two_ranks(config, stopped).wait(180) == 0
    assert_same_end(whole, stopped)

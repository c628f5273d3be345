"""Trainings that are stopped, and files that cannot be written."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import mmdet
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.hooks import Hook
from mmengine.registry import RUNNERS
from survival import (
    assert_same_end,
    is_same,
    iterations,
    last,
    load,
    start,
    train,
    write_run,
)
from tool_runs import command, environment

from mmdet_longtail.datasets.samplers import SeededBatchSampler
from mmdet_longtail.engine.hooks import FiniteLossHook, WholeCheckpointHook
from mmdet_longtail.engine.runner.resumable_runner import resumable
from mmdet_longtail.errors import LongTailError

MMDET_TRAIN = Path(mmdet.__file__).parent / '.mim/tools/train.py'
PLAIN_SAMPLER = dict(_delete_=True, type='DefaultSampler', shuffle=True)
BASE = Path(__file__).parents[3] / 'configs/_base_/resumable_runtime.py'


@pytest.fixture(autouse=True)
def signals():
    """Give back what a training in this process has taken."""
    kept = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def stop_after(process, work_dir, steps, number, send=os.killpg):
    """Wait for iterations, send a signal, and give the exit status."""
    until = time.monotonic() + 120
    while process.is_alive() and iterations(work_dir) < steps:
        assert time.monotonic() < until
        time.sleep(0.01)
    send(process.pid, number)
    process.join(60)
    return process.exitcode


def finish(config, work_dir, **overrides):
    process = start(config, work_dir, **overrides)
    process.join(120)
    assert process.exitcode == 0, Path(f'{work_dir}.log').read_text()[-3000:]


SHORT = {'train_cfg.max_epochs': 3, 'train_cfg.val_interval': 3}
NO_WORKERS = dict(num_workers=0, persistent_workers=False)


@pytest.mark.parametrize(
    'overrides',
    [
        {},
        {
            'train_dataloader.sampler': PLAIN_SAMPLER,
            'train_dataloader.batch_sampler': dict(
                type='AspectRatioBatchSampler'
            ),
            'default_hooks.checkpoint': dict(
                _delete_=True, type='CheckpointHook', interval=1
            ),
        },
        {
            'train_dataloader.sampler': dict(
                _delete_=True, type='ClassAwareImageSampler'
            ),
            'train_dataloader.num_workers': 0,
            'train_dataloader.persistent_workers': False,
            'optim_wrapper.accumulative_counts': 2,
        },
        {
            'train_cfg': dict(
                _delete_=True,
                type='IterBasedTrainLoop',
                max_iters=18,
                val_interval=18,
            ),
            'train_dataloader.sampler': dict(
                _delete_=True, type='InfiniteSampler'
            ),
        },
    ],
    ids=['repeat factors', 'aspect ratio', 'accumulated', 'iterations'],
)
def test_stopped_twice_is_as_never(tmp_path, overrides):
    if 'train_cfg' not in overrides:
        overrides = SHORT | overrides
    config = write_run(tmp_path, **overrides)
    whole, stopped = tmp_path / 'whole', tmp_path / 'stopped'
    finish(config, whole)
    process = start(config, stopped)
    assert stop_after(process, stopped, 7, signal.SIGUSR1) == 75
    seen = last(stopped)['meta']['iter']
    assert 7 <= seen < 18
    process = start(config, stopped)
    status = stop_after(
        process, stopped, iterations(stopped) + 2, signal.SIGKILL, os.kill
    )
    assert status == -signal.SIGKILL
    finish(config, stopped)
    assert_same_end(whole, stopped)


def test_the_end_depends_on_the_seed_and_not_on_workers(tmp_path):
    config = write_run(tmp_path, **SHORT)
    finish(config, tmp_path / 'two')
    finish(config, tmp_path / 'none', train_dataloader=NO_WORKERS)
    assert_same_end(tmp_path / 'two', tmp_path / 'none')
    finish(
        config,
        tmp_path / 'other',
        train_dataloader=NO_WORKERS,
        randomness=dict(seed=1),
    )
    with pytest.raises(AssertionError):
        assert_same_end(tmp_path / 'two', tmp_path / 'other')


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


def limit_files():
    """Let no file grow as large as a checkpoint."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))


def test_a_full_disk_is_one_line_and_keeps_the_last(tmp_path):
    config = write_run(tmp_path)
    work_dir = tmp_path / 'run'
    process = start(config, work_dir)
    assert stop_after(process, work_dir, 6, signal.SIGTERM) == 75
    before = last(work_dir)
    process = subprocess.run(
        command('train.py', config, '--work-dir', work_dir, '--resume'),
        env=environment(),
        preexec_fn=limit_files,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 1
    errors = [
        line for line in process.stderr.splitlines() if 'error' in line.lower()
    ]
    assert len(errors) == 1, process.stderr
    assert 'File too large' in errors[0]
    assert 'Traceback' not in process.stderr
    assert is_same(before['state_dict'], last(work_dir)['state_dict'])
    assert not list(work_dir.glob('*.tmp'))
    for path in work_dir.glob('*.pth'):
        load(path)


@pytest.mark.skipif(os.geteuid() != 0, reason='only root can mount')
def test_a_full_file_system(tmp_path):
    config = write_run(tmp_path)
    work_dir = tmp_path / 'run'
    work_dir.mkdir()
    mount = ['mount', '-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', str(work_dir)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip('mount is not permitted')
    try:
        process = start(config, work_dir)
        assert stop_after(process, work_dir, 6, signal.SIGTERM) == 75
        before = last(work_dir)
        free = os.statvfs(work_dir)
        with open(work_dir / 'other', 'wb') as file:
            file.write(bytes(free.f_bavail * free.f_bsize))
        process = subprocess.run(
            command('train.py', config, '--work-dir', work_dir, '--resume'),
            env=environment(),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert process.returncode == 1
        assert 'No space left on device' in process.stderr
        assert 'Traceback' not in process.stderr
        assert is_same(before['state_dict'], last(work_dir)['state_dict'])
        (work_dir / 'other').unlink()
        finish(config, work_dir)
    finally:
        subprocess.run(['umount', '-l', str(work_dir)], check=True)


def test_a_work_dir_that_cannot_be_written(tmp_path):
    config = write_run(tmp_path)
    process = subprocess.run(
        command('train.py', config, '--work-dir', config / 'run'),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 1
    assert process.stderr.count('\n') == 1
    assert 'the work directory cannot be written' in process.stderr


def test_a_bad_loss_stops_the_run(tmp_path):
    config = write_run(tmp_path, **SHORT)
    with pytest.raises(LongTailError) as caught:
        train(
            config,
            tmp_path / 'run',
            **{
                'train_dataloader': NO_WORKERS,
                'param_scheduler': [],
                'optim_wrapper.optimizer.lr': 1e12,
                'default_hooks.checkpoint.interval': 1,
            },
        )
    message = str(caught.value)
    assert message.startswith('iteration ')
    assert 'loss_' in message and 'on images ' in message
    assert '\n' not in message
    bad = int(message.split()[1].strip(':'))
    kept = last(tmp_path / 'run')
    assert kept['meta']['iter'] == bad - 1


def test_a_bad_loss_names_its_terms_and_images():
    class Runner:
        iter = 41

    batch = dict(data_samples=[dict(img_id=7), dict(img_path='a.png')])
    losses = dict(
        loss=torch.tensor(float('nan')),
        loss_cls=torch.tensor(float('nan')),
        loss_bbox=torch.tensor(1.0),
    )
    with pytest.raises(LongTailError) as caught:
        FiniteLossHook().after_train_iter(Runner(), 0, batch, losses)
    assert str(caught.value).startswith(
        'iteration 42: loss_cls=nan on images 7, a.png; '
    )
    FiniteLossHook().after_train_iter(
        Runner(), 0, batch, dict(loss=torch.tensor(1.0), acc=float('nan'))
    )


class _Images(list):
    metainfo = dict(classes=('a',))


def test_batches_go_on_from_any_of_them():
    def batches(batch=0, iteration=0):
        sampler = DefaultSampler(_Images(range(10)), shuffle=True, seed=0)
        sampled = SeededBatchSampler(sampler, 3, seed=5)
        sampled.start_at(batch, iteration)
        return list(sampled)

    whole = batches()
    assert len(whole) == 4
    assert len({words for batch in whole for _, words in batch}) == 10
    assert batches(2, 2) == whole[2:]
    assert batches(4, 4) == []


def test_samplers_that_do_not_repeat_are_refused():
    sampler = InfiniteSampler(_Images(range(1000)), seed=0)
    with pytest.raises(LongTailError, match='InfiniteSampler gives other'):
        SeededBatchSampler(sampler, 2, seed=0).check_repeatable()


def test_two_checkpoints_at_least():
    with pytest.raises(LongTailError, match='max_keep_ckpts is 1, expected 2'):
        WholeCheckpointHook(interval=1, max_keep_ckpts=1)


def test_an_epoch_that_ends_within_a_step_is_refused(tmp_path):
    config = write_run(
        tmp_path,
        **SHORT,
        **{
            'optim_wrapper.accumulative_counts': 4,
            'default_hooks.checkpoint': dict(
                _delete_=True, type='CheckpointHook', interval=1
            ),
            'train_dataloader.sampler': PLAIN_SAMPLER,
        },
    )
    with pytest.raises(LongTailError, match='an epoch has 6 iterations, whi'):
        train(config, tmp_path / 'run')


def test_the_base_goes_beside_others(tmp_path):
    config = write_run(tmp_path)
    text = config.read_text().replace("runner_type = 'mmdet.Resu", "x = 'y.")
    (tmp_path / 'other.py').write_text(text)
    (tmp_path / 'child.py').write_text(f'_base_ = ["other.py", "{BASE}"]\n')
    child = Config.fromfile(tmp_path / 'child.py')
    named = resumable(child)
    assert child.train_cfg.type == 'EpochBasedTrainLoop'
    assert named.train_cfg.type == 'mmdet.ResumableEpochBasedTrainLoop'
    assert named.default_hooks.checkpoint.type == 'mmdet.WholeCheckpointHook'
    assert named.default_hooks.checkpoint.interval == 4
    assert resumable(named).to_dict() == named.to_dict()
    child.train_cfg.type = 'SomeLoop'
    child.work_dir = str(tmp_path / 'run')
    with pytest.raises(LongTailError, match="type is 'SomeLoop'"):
        RUNNERS.build(child)

"""Trainings that are stopped or killed, and resumed."""

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import RUNNERS
from survival import (
    NO_WORKERS,
    PLAIN_SAMPLER,
    SHORT,
    assert_same_end,
    finish,
    iterations,
    last,
    load,
    start,
    stop_after,
    write_run,
)

from mmdet_longtail.engine.runner.resumable_runner import resumable
from mmdet_longtail.errors import LongTailError

BASE = Path(__file__).parents[3] / 'configs/_base_/resumable_runtime.py'
KILLS = 20


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


def kill_somewhere(process, work_dir, dice):
    """Kill a run or its whole group: at its start, or some steps later."""
    number = dice.choice([signal.SIGTERM, signal.SIGKILL])
    send = dice.choice([os.kill, os.killpg])
    until = time.monotonic() + dice.uniform(0, 2)
    steps = iterations(work_dir) + dice.randint(1, 4)
    is_at_start = dice.random() < 0.2
    while process.is_alive() and (
        time.monotonic() < until
        if is_at_start
        else iterations(work_dir) < steps
    ):
        time.sleep(0.005)
    time.sleep(dice.uniform(0, 0.05))
    try:
        send(process.pid, number)
    except ProcessLookupError:  # before it has a group of its own
        os.kill(process.pid, number)
    process.join(60)
    status = process.exitcode
    assert status is not None, 'it hangs'
    if number == signal.SIGKILL:
        assert status in (-signal.SIGKILL, 0)
    else:
        assert status in (75, -signal.SIGTERM, 0)
    return number.name, send.__name__, status


def check_files(work_dir):
    """All checkpoints are whole, and the last one is there."""
    if not (work_dir / 'last_checkpoint').exists():
        return 0
    checkpoints = list(work_dir.glob('*.pth'))
    names = [path.name for path in checkpoints]
    named = (work_dir / 'last_checkpoint').read_text()
    assert os.path.basename(named) in names
    for path in checkpoints:
        load(path)
    return len(checkpoints)


@pytest.mark.slow
def test_twenty_kills_leave_the_result_of_none(tmp_path):
    config = write_run(tmp_path)
    whole, killed = tmp_path / 'whole', tmp_path / 'killed'
    process = start(config, whole)
    process.join(120)
    assert process.exitcode == 0
    dice = random.Random(0)
    faults = []
    most_kept = 0
    while len(faults) < KILLS:
        faults.append(kill_somewhere(start(config, killed), killed, dice))
        num_kept = check_files(killed)
        assert num_kept >= min(most_kept, 2)
        most_kept = max(most_kept, num_kept)
    before_end = sum(status != 0 for *_, status in faults)
    process = start(config, killed)
    process.join(120)
    assert process.exitcode == 0
    assert_same_end(whole, killed)
    assert not list(killed.glob('*.tmp'))
    for fault, count in sorted(Counter(faults).items()):
        print(*fault, count)
    print(f'{before_end} before the end, {iterations(killed)} iterations')
    assert before_end >= 15

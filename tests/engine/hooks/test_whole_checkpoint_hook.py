"""Checkpoints on a full disk, and how many of them are kept."""

import resource
import signal
import subprocess

import pytest
from survival import (
    PLAIN_SAMPLER,
    SHORT,
    finish,
    is_same,
    last,
    load,
    start,
    stop_after,
    train,
    write_run,
)
from tool_runs import command, environment

from mmdet_longtail.engine.hooks import WholeCheckpointHook
from mmdet_longtail.errors import LongTailError


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
    finish(config, work_dir)


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

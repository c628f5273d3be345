"""Checkpoints on a full disk, and how many of them are kept."""

import resource
import signal
import subprocess
import sys

import pytest
from survival import (
    NO_WORKERS,
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

from mmdet_longtail.apis.train import train_detector
from mmdet_longtail.engine.hooks import WholeCheckpointHook
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.utils.fileio import HOST


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
        timeout=900,
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


def test_a_full_disk_leaves_no_cut_checkpoint_of_the_default_runner(tmp_path):
    config = write_run(
        tmp_path,
        **SHORT,
        **{
            'runner_type': 'Runner',
            'train_dataloader.num_workers': 0,
            'train_dataloader.persistent_workers': False,
            'val_dataloader': NO_WORKERS,
        },
    )
    process = subprocess.run(
        command('train.py', config, '--work-dir', tmp_path / 'run'),
        env=environment(),
        preexec_fn=limit_files,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert process.returncode == 1
    assert 'File too large' in process.stderr.splitlines()[-1]
    assert 'Traceback' not in process.stderr
    assert not list((tmp_path / 'run').glob('*.pth*'))


HOLD = """
import sys, time
from mmdet_longtail.utils.locks import locked
with locked(sys.argv[1]):
    print('held', flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize('runner_type', ['mmdet.ResumableRunner', 'Runner'])
def test_a_second_run_is_refused_and_harms_nothing(tmp_path, runner_type):
    config = write_run(tmp_path, runner_type=runner_type)
    work_dir = tmp_path / 'run'
    work_dir.mkdir()
    first = subprocess.Popen(
        [sys.executable, '-c', HOLD, work_dir],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert first.stdout.readline() == 'held\n'
    unfinished = work_dir / f'x.pth.{HOST}.{first.pid}.tmp'
    unfinished.touch()
    with pytest.raises(LongTailError, match=f'process {first.pid} on {HOST}'):
        train_detector(config, work_dir=work_dir)
    if runner_type != 'Runner':  # by a script of others
        with pytest.raises(LongTailError, match='another training'):
            train(config, work_dir)
    assert unfinished.exists()
    assert first.poll() is None
    first.kill()
    first.wait()


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

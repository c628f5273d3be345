"""A run of 60 iterations with all that is random, and what it leaves."""

import contextlib
import os
import time
from multiprocessing import get_context
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import RUNNERS
from tiny import make_data, write_config

from mmdet_longtail.errors import LongTailError

AUGMENTED = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomResize', scale=[(48, 48), (64, 64)], keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackDetInputs'),
]
PERSISTENT = dict(num_workers=1, persistent_workers=True)
NO_WORKERS = dict(num_workers=0, persistent_workers=False)
PLAIN_SAMPLER = dict(_delete_=True, type='DefaultSampler', shuffle=True)
SHORT = {'train_cfg.max_epochs': 3, 'train_cfg.val_interval': 3}


def write_run(folder, **overrides):
    """Write data and a config of ten epochs of six iterations."""
    data = folder / 'data'
    if not data.exists():
        make_data(data, num_train=12)
    config = Config.fromfile(write_config(folder / 'tiny.py', data))
    config.merge_from_dict(
        {
            'runner_type': 'mmdet.ResumableRunner',
            'train_cfg.max_epochs': 10,
            'train_cfg.val_interval': 5,
            'train_dataloader.dataset.pipeline': AUGMENTED,
            'train_dataloader.num_workers': 2,
            'train_dataloader.persistent_workers': True,
            'train_dataloader.sampler': dict(
                _delete_=True, type='RepeatFactorSampler', oversample_thr=0.6
            ),
            'val_dataloader': PERSISTENT,
            'optim_wrapper': dict(
                type='OptimWrapper',
                optimizer=dict(type='SGD', lr=0.01, momentum=0.9),
            ),
            'param_scheduler': [
                dict(
                    type='LinearLR', start_factor=0.1, by_epoch=False, end=20
                ),
                dict(type='MultiStepLR', milestones=[5, 8]),
            ],
            'custom_hooks': [dict(type='EMAHook')],
            'default_hooks.class_statistics': dict(type='ClassStatisticsHook'),
            'default_hooks.checkpoint': dict(
                type='CheckpointHook',
                interval=4,
                by_epoch=False,
                max_keep_ckpts=2,
            ),
            **overrides,
        }
    )
    path = folder / 'run.py'
    config.dump(path)
    return path


def train(config, work_dir, **overrides):
    """Train in this process, from the last checkpoint if there is one."""
    torch.set_num_threads(1)
    config = Config.fromfile(config)
    config.merge_from_dict(overrides)
    config.work_dir = str(work_dir)
    config.resume = True
    config.experiment_name = f'{work_dir}_{os.getpid()}'
    runner = RUNNERS.build(config)
    runner.train()
    return runner


def _train_in_group(config, work_dir, overrides):
    os.setsid()
    with (
        open(f'{work_dir}.log', 'a', buffering=1) as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        try:
            train(config, work_dir, **overrides)
        except LongTailError as error:
            print(f'error: {error}')
            os._exit(1)


def start(config, work_dir, **overrides):
    """Train in a process that leads a process group of its own."""
    process = get_context('fork').Process(
        target=_train_in_group, args=(config, Path(work_dir), overrides)
    )
    process.start()
    return process


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


def iterations(work_dir):
    """Count the iterations that all attempts together have logged."""
    log = Path(f'{work_dir}.log')
    return log.read_text().count('(train)') if log.exists() else 0


def load(path):
    return torch.load(path, map_location='cpu', weights_only=True)


def last(work_dir):
    """Read the checkpoint that a resume starts from."""
    return load(Path(work_dir, 'last_checkpoint').read_text())


def is_same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(
            is_same(one[key], other[key]) for key in one
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(is_same, one, other))
    return one == other


def assert_same_end(one, other):
    """Compare the last checkpoints of two work directories, bit by bit."""
    one, other = last(one), last(other)
    assert one['meta']['iter'] == other['meta']['iter']
    parts = ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers')
    for part in parts:
        assert (part in one) == (part in other)
        assert is_same(one.get(part), other.get(part)), part

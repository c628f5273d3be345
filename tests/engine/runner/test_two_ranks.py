"""Two ranks of a resumable run: their random numbers, and a signal to one."""

import json
import os
import random
import signal

import numpy as np
import pytest
import torch
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import RUNNERS
from ranks import run_on_two_ranks
from survival import AUGMENTED, NO_WORKERS, SHORT, last, write_run

STEPS = 3  # before rank 1 gets the signal


def draw():
    """Draw of each generator that the transforms of mmdet use."""
    of_numpy = np.random.random()  # noqa: NPY002
    return random.random(), of_numpy, torch.rand(1).item()


class Draw(BaseTransform):
    """Keeps a random number with an image."""

    def transform(self, results):
        return dict(results, draws=draw())


class Record(Hook):
    """Keeps the numbers of all steps, and ends one rank."""

    def __init__(self, is_asked):
        self.is_asked = is_asked
        self.draws = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        of_images = [sample.draws for sample in data_batch['data_samples']]
        self.draws.append([draw(), *of_images])
        if self.is_asked and len(self.draws) == STEPS:
            os.kill(os.getpid(), signal.SIGTERM)


def train_on_rank(rank, config, folder):
    TRANSFORMS.register_module(module=Draw)
    config = Config.fromfile(config)
    # Each rank trains a detector of its own; the collectives are real.
    config.work_dir = f'{folder}/rank_{rank}'
    runner = RUNNERS.build(config)
    record = Record(is_asked=rank == 1)
    runner.register_hook(record)
    with pytest.raises(SystemExit) as caught:
        runner.train()
    content = dict(status=caught.value.code, draws=record.draws)
    with open(f'{folder}/{rank}.json', 'w') as file:
        json.dump(content, file)


@pytest.fixture(scope='module')
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp('ranks')
    *others, pack = AUGMENTED
    keys = ('img_id', 'ori_shape', 'img_shape', 'scale_factor', 'draws')
    pipeline = [*others, dict(type='Draw'), dict(pack, meta_keys=keys)]
    config = write_run(
        folder,
        **SHORT,
        **{
            'train_dataloader.dataset.pipeline': pipeline,
            'train_dataloader.num_workers': 0,
            'train_dataloader.persistent_workers': False,
            'val_dataloader': NO_WORKERS,
        },
    )
    run_on_two_ranks(train_on_rank, str(config), str(folder))
    return folder, [
        json.loads((folder / f'{rank}.json').read_text()) for rank in (0, 1)
    ]


def test_one_of_two_ranks_is_asked_and_both_save_and_exit(found):
    folder, ranks = found
    assert [rank['status'] for rank in ranks] == [75, 75]
    assert [len(rank['draws']) for rank in ranks] == [STEPS, STEPS]
    assert last(folder / 'rank_0')['meta']['iter'] == STEPS


def test_no_two_ranks_steps_and_images_draw_alike(found):
    _, ranks = found
    draws = [draw for rank in ranks for step in rank['draws'] for draw in step]
    assert len(draws) == 2 * STEPS * (1 + 2)
    for numbers in zip(*draws):  # of random, numpy and torch
        assert len(set(numbers)) == len(draws)

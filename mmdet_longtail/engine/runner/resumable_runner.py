"""A runner and training loops that resume exactly, also within an epoch."""

import copy
from typing import Any

from mmdet.registry import LOOPS, RUNNERS
from mmengine.config import Config, ConfigDict
from mmengine.dist import get_rank
from mmengine.runner import (
    BaseLoop,
    EpochBasedTrainLoop,
    IterBasedTrainLoop,
    Runner,
)
from torch import nn

from mmdet_longtail.engine.hooks.preemption_hook import (
    PreemptionHook,
    keep_workers,
)
from mmdet_longtail.engine.runner.launch import exclusive_training
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.utils.registry import type_name
from mmdet_longtail.utils.seeding import seed_all

BATCHES_SEEN = 'batches_seen'


class _ResumableLoopMixin(BaseLoop):
    """Makes each iteration a function of random seed, rank and iteration.

    No state of a random number generator has to be saved.
    """

    def __init__(
        self, runner: Runner, dataloader: dict[str, Any], **kwargs: Any
    ) -> None:
        randomness = runner._randomness_cfg
        self.seed = randomness.get('seed')
        if self.seed is None:
            raise LongTailError(
                'randomness.seed is not set, and a resumed run would draw '
                'another one; set randomness=dict(seed=0)'
            )
        config = dict(dataloader)
        dataset = config['dataset']
        config['dataset'] = dict(type='mmdet.SeededDataset', dataset=dataset)
        config['batch_sampler'] = dict(
            type='mmdet.SeededBatchSampler',
            seed=self.seed,
            batch_sampler=config.get('batch_sampler'),
            drop_last=config.pop('drop_last', False),
        )
        built = runner.build_dataloader(
            config, runner.seed, randomness.get('diff_rank_seed', False)
        )
        # A loop over iterations starts the workers when it is built.
        keep_workers(built)
        super().__init__(runner, built, **kwargs)

    def run_iter(self, *args: Any) -> None:
        """Run one training step; its own draws have place 0 of the batch."""
        seed_all(self.seed, get_rank(), self._iter, 0)
        super().run_iter(*args)


@LOOPS.register_module()
class ResumableEpochBasedTrainLoop(_ResumableLoopMixin, EpochBasedTrainLoop):
    """Train by epochs, and resume at any iteration of an epoch.

    Arguments are those of ``EpochBasedTrainLoop``.

    Raises:
        LongTailError: If ``randomness`` has no seed, or the sampler does not
            repeat an epoch.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.dataloader.batch_sampler.check_repeatable()

    def run_epoch(self) -> None:
        """Run the remaining iterations of an epoch."""
        hub = self.runner.message_hub  # is saved in checkpoints
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        seen = hub.get_info(BATCHES_SEEN, 0)
        self.dataloader.batch_sampler.start_at(seen, self._iter)
        for idx, data_batch in enumerate(self.dataloader, seen):
            hub.update_info(BATCHES_SEEN, idx + 1)
            self.run_iter(idx, data_batch)
        hub.update_info(BATCHES_SEEN, 0)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1


@LOOPS.register_module()
class ResumableIterBasedTrainLoop(_ResumableLoopMixin, IterBasedTrainLoop):
    """Train by iterations, and resume at any of them.

    mmengine finds the place by iterating over all batches before. Arguments
    are those of ``IterBasedTrainLoop``.

    Raises:
        LongTailError: If ``randomness`` has no seed.
    """


@RUNNERS.register_module()
class ResumableRunner(Runner):
    """A runner whose training can be stopped and resumed at any time.

    Set ``runner_type='mmdet.ResumableRunner'`` in a config or among the
    ``--cfg-options``. The runner adds what it needs (:func:`resumable`).
    """

    @classmethod
    def from_cfg(cls, cfg: Config) -> Runner:
        return super().from_cfg(resumable(cfg))

    def train(self) -> nn.Module:
        """Train, and restore the signal handlers after an error too.

        Raises:
            LongTailError: If another training uses the work directory.
        """
        try:
            with exclusive_training(self.work_dir):
                return super().train()
        except Exception:
            for hook in self.hooks:
                if isinstance(hook, PreemptionHook):
                    hook.after_run(self)
            raise


def resumable(config: Config) -> Config:
    """Return a copy of a config with all that a resumable training needs.

    These are the training loop, the hooks for checkpoints, preemption and
    invalid losses, and random seed 0 if the config has none.

    Raises:
        LongTailError: If the training loop is not one of mmengine's.
    """
    config = copy.deepcopy(config)
    loop = config.get('train_cfg')
    if loop is None:
        return config
    if 'type' not in loop:
        unit = 'Epoch' if loop.pop('by_epoch', True) else 'Iter'
        loop.type = f'{unit}BasedTrainLoop'
    known = ('EpochBasedTrainLoop', 'IterBasedTrainLoop')
    name = type_name(loop).removeprefix('Resumable')
    if name not in known:
        raise LongTailError(
            f'train_cfg.type is {type_name(loop)!r}, ResumableRunner supports '
            f'{" and ".join(known)}; use one of them, or remove runner_type'
        )
    loop.type = f'mmdet.Resumable{name}'
    config.randomness = config.get('randomness') or ConfigDict()
    if config.randomness.get('seed') is None:
        config.randomness.seed = 0
    hooks = config.get('default_hooks') or ConfigDict()
    hooks.checkpoint = hooks.get('checkpoint') or ConfigDict(interval=1)
    hooks.checkpoint.type = 'mmdet.WholeCheckpointHook'
    hooks.setdefault('finite_loss', ConfigDict(type='mmdet.FiniteLossHook'))
    hooks.setdefault('preemption', ConfigDict(type='mmdet.PreemptionHook'))
    config.default_hooks = hooks
    return config

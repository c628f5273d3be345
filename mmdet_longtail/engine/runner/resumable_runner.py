"""A runner that is like mmengine's, and can be stopped at any time."""

from __future__ import annotations

import copy

from mmdet.registry import RUNNERS
from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner

from mmdet_longtail.errors import LongTailError

LOOPS = {
    'EpochBasedTrainLoop': 'mmdet.ResumableEpochBasedTrainLoop',
    'IterBasedTrainLoop': 'mmdet.ResumableIterBasedTrainLoop',
}


@RUNNERS.register_module()
class ResumableRunner(Runner):
    """A runner whose training can be stopped and resumed at any time.

    ``runner_type='mmdet.ResumableRunner'`` in a config, or among the
    ``--cfg-options``, names the pieces that it takes (:func:`resumable`).
    """

    @classmethod
    def from_cfg(cls, cfg: Config) -> Runner:
        """Build it."""
        return super().from_cfg(resumable(cfg))


def resumable(config: Config) -> Config:
    """Name in a config the pieces that a resumable training takes.

    They are the loop, the hooks for checkpoints, preemption and losses that
    are not finite, and the seed 0 where there is none.

    Args:
        config (Config): Any config.

    Returns:
        Config: A copy.

    Raises:
        LongTailError: If the training loop is neither of mmengine's.
    """
    config = copy.deepcopy(config)
    if config.get('train_cfg') is None:
        return config
    loop = config.train_cfg
    if 'type' not in loop:
        is_epoch_based = loop.pop('by_epoch', True)
        loop.type = f'{"Epoch" if is_epoch_based else "Iter"}BasedTrainLoop'
    name = loop.type.rpartition('.')[-1]
    if name not in LOOPS and f'mmdet.{name}' not in LOOPS.values():
        raise LongTailError(
            f'train_cfg.type is {loop.type!r}, and ResumableRunner knows '
            f'{" and ".join(LOOPS)}; use one of them, or leave out runner_type'
        )
    loop.type = LOOPS.get(name, loop.type)
    randomness = config.get('randomness') or ConfigDict(seed=0)
    if randomness.get('seed') is None:
        randomness.seed = 0
    config.randomness = randomness
    hooks = config.get('default_hooks') or ConfigDict()
    checkpoint = hooks.get('checkpoint') or ConfigDict(interval=1)
    checkpoint.type = 'mmdet.WholeCheckpointHook'
    hooks.checkpoint = checkpoint
    hooks.setdefault('finite_loss', ConfigDict(type='mmdet.FiniteLossHook'))
    hooks.setdefault('preemption', ConfigDict(type='mmdet.PreemptionHook'))
    config.default_hooks = hooks
    return config

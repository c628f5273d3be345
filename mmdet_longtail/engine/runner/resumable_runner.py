"""A runner whose training can be stopped and resumed at any time."""

from __future__ import annotations

import copy

from mmdet.registry import RUNNERS
from mmengine.config import Config, ConfigDict
from mmengine.runner import Runner
from torch import nn

from mmdet_longtail.engine.hooks import PreemptionHook
from mmdet_longtail.errors import LongTailError

LOOPS = {
    'EpochBasedTrainLoop': 'mmdet.ResumableEpochBasedTrainLoop',
    'IterBasedTrainLoop': 'mmdet.ResumableIterBasedTrainLoop',
}


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
        """Train, and restore the signal handlers after an error too."""
        try:
            return super().train()
        except Exception:
            for hook in self.hooks:
                if isinstance(hook, PreemptionHook):
                    hook.after_run(self)
            raise


def resumable(config: Config) -> Config:
    """Return a config with all that a resumable training needs.

    These are the training loop, the hooks for checkpoints, preemption and
    invalid losses, and random seed 0 if the config has none.

    Args:
        config (Config): Any config.

    Returns:
        Config: A copy.

    Raises:
        LongTailError: If the training loop is not one of mmengine's.
    """
    config = copy.deepcopy(config)
    loop = config.get('train_cfg')
    if loop is None:
        return config
    if 'type' not in loop:
        is_epoch_based = loop.pop('by_epoch', True)
        loop.type = f'{"Epoch" if is_epoch_based else "Iter"}BasedTrainLoop'
    name = loop.type.rpartition('.')[-1]
    if name not in LOOPS and f'mmdet.{name}' not in LOOPS.values():
        raise LongTailError(
            f'train_cfg.type is {loop.type!r}, ResumableRunner supports '
            f'{" and ".join(LOOPS)}; use one of them, or remove runner_type'
        )
    loop.type = LOOPS.get(name, loop.type)
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

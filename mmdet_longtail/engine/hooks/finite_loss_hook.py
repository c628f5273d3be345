"""Stop a run with an infinite or NaN loss."""

from typing import Any, NamedTuple

import torch
from mmdet.engine.hooks import CheckInvalidLossHook
from mmdet.registry import HOOKS
from mmengine.dist import all_reduce
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner
from torch import Tensor

from mmdet_longtail.errors import LongTailError, check

MAX_SKIPPED = 10


class _Step(NamedTuple):
    iteration: int  # from 1
    terms: dict[str, Tensor]  # 0-dim, on their device
    images: list[str]


@HOOKS.register_module()
class FiniteLossHook(CheckInvalidLossHook):
    """Stop a run before an infinite or NaN loss gets into a checkpoint.

    mmdet's hook with an error that names the cause, also under ``python -O``.
    `ClassStatisticsHook` registers one with an interval of 50.

    Every loss is checked. They are read together, once per interval, and
    before each validation and checkpoint: reading waits for the GPU. Ranks
    stop together. Mixed precision with a GradScaler skips the step of such a
    loss, so there a run stops at more than 10 in a row.

    Args:
        interval (int): Iterations between two checks. Defaults to 1.

    Raises:
        LongTailError: If a loss is infinite or NaN, with the iteration, the
            terms and the images.
    """

    priority = 'HIGH'  # before a checkpoint, and the moving average

    def __init__(self, interval: int = 1) -> None:
        check(
            isinstance(interval, int) and interval >= 1,
            f'FiniteLossHook: interval is {interval!r}, expected a number of '
            'iterations, at least 1',
        )
        super().__init__(interval)
        self._steps: list[_Step] = []  # not checked yet
        self._num_skipped = 0  # in a row

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any, outputs: Any
    ) -> None:
        """Keep the loss of the step, and check where it is due."""
        terms = {
            name: value.detach()
            for name, value in outputs.items()
            if 'loss' in name and isinstance(value, Tensor)
        }
        if 'loss' in terms:
            images = [
                str(sample.get('img_id', sample.get('img_path', '?')))
                for sample in data_batch.get('data_samples') or ()
            ]
            self._steps.append(_Step(runner.iter + 1, terms, images))
        if self.every_n_train_iters(runner, self.interval) or any(
            isinstance(hook, CheckpointHook)
            and not hook.by_epoch
            and hook.every_n_train_iters(runner, hook.interval)
            for hook in runner.hooks
        ):
            self._check_on_all_ranks(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        """Check before the checkpoint of the epoch."""
        self._check_on_all_ranks(runner)

    def before_val_epoch(self, runner: Runner) -> None:
        """Check before a validation."""
        self._check_on_all_ranks(runner)

    def before_save_checkpoint(
        self, runner: Runner, checkpoint: dict[str, Any]
    ) -> None:
        """Check before any checkpoint; only rank 0 saves."""
        if message := self._find_invalid(runner):
            raise LongTailError(message)

    def _check_on_all_ranks(self, runner: Runner) -> None:
        message = self._find_invalid(runner)
        is_invalid = torch.tensor(int(bool(message)))
        all_reduce(is_invalid, 'max')
        if is_invalid:
            raise LongTailError(
                message
                or f'iteration {runner.iter + 1}: the loss of another rank '
                'is infinite or NaN; its message names the images'
            )

    def _find_invalid(self, runner: Runner) -> str:
        """Describe the first invalid loss since the last check, or ''."""
        steps, self._steps = self._steps, []
        if not steps:
            return ''
        scaler = getattr(runner.optim_wrapper, 'loss_scaler', None)
        limit = MAX_SKIPPED if scaler and scaler.is_enabled() else 0
        totals = torch.stack([step.terms['loss'] for step in steps])
        for step, is_finite in zip(steps, totals.isfinite().tolist()):
            self._num_skipped = 0 if is_finite else self._num_skipped + 1
            if self._num_skipped > limit:
                return _describe(step)
        return ''


def _describe(step: _Step) -> str:
    """Name the invalid terms of a step, and its images."""
    terms = ', '.join(
        f'{name}={value.item():g}'
        for name, value in step.terms.items()
        if not value.isfinite()
    )
    return (
        f'iteration {step.iteration}: {terms} on images '
        f'{", ".join(step.images)}; look at their annotations, or lower the '
        'learning rate, clip the gradients, or warm up longer'
    )

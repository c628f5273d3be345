"""Stop a run with an infinite or NaN loss."""

from math import isfinite
from typing import Any

from mmdet.engine.hooks import CheckInvalidLossHook
from mmdet.registry import HOOKS
from mmengine.runner import Runner

from mmdet_longtail.errors import LongTailError


@HOOKS.register_module()
class FiniteLossHook(CheckInvalidLossHook):
    """Stop a run before an infinite or NaN loss gets into a checkpoint.

    mmdet's hook with an error that names the cause, also under ``python -O``.

    Args:
        interval (int): Iterations between two checks. Defaults to 1. With
            more, a checkpoint can follow an invalid loss.

    Raises:
        LongTailError: If the loss is infinite or NaN, with the iteration,
            the terms and the images.
    """

    priority = 'HIGH'  # before a checkpoint, and the moving average

    def __init__(self, interval: int = 1) -> None:
        super().__init__(interval)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any, outputs: Any
    ) -> None:
        """Check the loss of the step."""
        if not self.every_n_train_iters(runner, self.interval):
            return
        total = outputs['loss'].item()
        if isfinite(total):  # not if one of its terms is invalid
            return
        values = {n: v.item() for n, v in outputs.items() if 'loss' in n}
        terms = [f'{n}={v:g}' for n, v in values.items() if not isfinite(v)]
        images = [
            str(sample.get('img_id', sample.get('img_path', '?')))
            for sample in data_batch.get('data_samples') or ()
        ]
        raise LongTailError(
            f'iteration {runner.iter + 1}: {", ".join(terms)} on images '
            f'{", ".join(images)}; look at their annotations, or lower the '
            'learning rate, clip the gradients, or warm up longer'
        )

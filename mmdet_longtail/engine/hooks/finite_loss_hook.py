"""Stops a run whose loss is not a number."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet_longtail.errors import LongTailError


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stops a run before it saves weights that a bad loss has changed.

    Raises:
        LongTailError: If the loss is infinite or not a number, naming the
            iteration, the terms and the images.
    """

    priority = 'HIGH'  # before a checkpoint, and the moving average

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict[str, Any] | None = None,
    ) -> None:
        """Look at the loss that the step was taken with."""
        outputs = outputs or {}
        # The sum is bad as soon as one of its terms is.
        if _is_finite(outputs.get('loss', 0.0)):
            return
        bad = {
            name: torch.as_tensor(value).item()
            for name, value in outputs.items()
            if 'loss' in name and not _is_finite(value)
        }
        if len(bad) > 1:
            del bad['loss']
        terms = ', '.join(f'{name}={value:g}' for name, value in bad.items())
        images = ', '.join(map(str, _image_ids(data_batch)))
        raise LongTailError(
            f'iteration {runner.iter + 1}: {terms} on images {images}; look '
            'at their annotations, or lower the learning rate, clip the '
            'gradients, or warm up longer'
        )


def _is_finite(value: Any) -> bool:
    return bool(torch.isfinite(torch.as_tensor(value)).all())


def _image_ids(data_batch: Any) -> list[Any]:
    """Name the images of a batch, by their files where they have no ids."""
    samples = data_batch.get('data_samples') or ()
    return [
        sample.get('img_id', sample.get('img_path', '?')) for sample in samples
    ]

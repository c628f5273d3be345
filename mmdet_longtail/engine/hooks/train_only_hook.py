"""Trains the named parts of a detector and freezes the rest."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch
from typing import Any

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.utils.frozen_losses import skip_frozen_losses


@HOOKS.register_module()
class TrainOnlyHook(Hook):
    """Freezes all parameters but those of the named parts.

    The frozen part keeps its normalisation statistics, and no graph is built
    for it. Losses that are left without anything to train, such as those of
    the RPN, the boxes and the masks when ``fc_cls`` trains, are not computed
    (:func:`skip_frozen_losses`).

    Args:
        trainable (Sequence[str]): Names of modules or parameters, with ``*``
            for any text, such as ``roi_head.bbox_head.fc_cls`` or, for the
            stages of a cascade, ``roi_head.bbox_head.*.fc_cls``.

    Raises:
        LongTailError: If a name matches no parameter.
    """

    priority = 'VERY_HIGH'  # before EMAHook copies the model

    def __init__(self, trainable: Sequence[str]) -> None:
        self.trainable = trainable
        self.frozen_norms: list[nn.Module] = []

    def before_run(self, runner: Runner) -> None:
        """Freeze, and wrap again what had been wrapped for all parameters."""
        is_wrapped = is_model_wrapper(runner.model)
        model = runner.model.module if is_wrapped else runner.model
        names = [name for name, _ in model.named_parameters()]
        for pattern in self.trainable:
            if not any(_matches(name, pattern) for name in names):
                raise LongTailError(
                    f'TrainOnlyHook: trainable={pattern!r} matches no '
                    'parameter; names look like '
                    f'{names[-1].rpartition(".")[0]!r}'
                )
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(
                any(_matches(name, pattern) for pattern in self.trainable)
            )
        self.frozen_norms = [
            module
            for module in model.modules()
            if isinstance(module, _NormBase)
            and not any(
                parameter.requires_grad for parameter in module.parameters()
            )
        ]
        trained = {
            name: parameter.numel()
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
        runner.logger.info(
            f'Training {sum(trained.values())} of '
            f'{sum(p.numel() for p in model.parameters())} parameters: '
            f'{", ".join(trained)}'
        )
        skipped = skip_frozen_losses(model, trained)
        if skipped:
            runner.logger.info(
                f'Losses that train nothing are left out: {", ".join(skipped)}'
            )
        if is_wrapped:
            runner.model = runner.wrap_model(
                runner.cfg.get('model_wrapper_cfg'), model
            )

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Keep frozen normalisation frozen; each epoch starts with train()."""
        for module in self.frozen_norms:
            module.eval()


def _matches(name: str, pattern: str) -> bool:
    return fnmatch(name, pattern) or fnmatch(name, f'{pattern}.*')

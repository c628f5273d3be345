"""Trains the classifier of a finished detector from the beginning."""

from __future__ import annotations

from typing import Any

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner

from mmdet_longtail.models.utils.classifier_recorder import classifier_heads
from mmdet_longtail.models.utils.wrappers import unwrapped
from mmdet_longtail.structures import Checkpoint


@HOOKS.register_module()
class RestartClassifierHook(Hook):
    """Leaves the classifier out of what ``load_from`` brings.

    The classifier (``fc_cls`` of each RoI head) starts with the weights of a
    model that was never trained, as in cRT (Kang et al., Decoupling
    Representation and Classifier for Long-Tailed Recognition, ICLR 2020,
    https://arxiv.org/abs/1910.09217, section 4.2). A resume and a test take
    it from the checkpoint.

    Raises:
        LongTailError: If the model has no RoI head with a classifier.
    """

    priority = 'VERY_HIGH'  # before EMAHook copies what was loaded

    def after_load_checkpoint(
        self, runner: Runner, checkpoint: dict[str, Any]
    ) -> None:
        """Take the classifier out of the checkpoint."""
        # A test run has a config in the place of the loop.
        if not isinstance(runner._train_loop, BaseLoop) or runner._resume:
            return
        model = unwrapped(runner.model)
        classifiers = {head.fc_cls for head in classifier_heads(model)}
        weights = Checkpoint.of(checkpoint).weights
        for name, module in model.named_modules():
            if module in classifiers:
                left_out = [k for k in weights if k.startswith(f'{name}.')]
                for key in left_out:
                    del weights[key]
                runner.logger.info(
                    f'{name} starts anew, without {len(left_out)} weights of '
                    'the checkpoint'
                )

"""Conversion or restart of the classifier that ``load_from`` loads."""

from typing import Any

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner

from mmdet_longtail.engine.run_faults import find_loading_faults
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.utils.bbox_heads import classifier_heads, unwrapped
from mmdet_longtail.models.utils.classifier_conversion import (
    convert_checkpoint,
)
from mmdet_longtail.structures import Checkpoint, ClassStatistics
from mmdet_longtail.structures.findings import raise_or_log


def is_training(runner: Runner) -> bool:
    """Check whether a runner trains."""
    # The training set of a test run stays a config: it may not exist.
    return isinstance(runner._train_loop, BaseLoop)


def starts_training(runner: Runner) -> bool:
    """Check whether a runner trains and does not resume."""
    return is_training(runner) and not runner._resume


@HOOKS.register_module()
class ConvertClassifierHook(Hook):
    """Convert the classifier that ``load_from`` loads to the model's loss.

    The checkpoint may come from a training with another loss. Its class rows
    are converted (:func:`convert_checkpoint`). A classifier that cannot be
    converted, such as one of other classes, is re-initialised if its width
    differs. A resume and a test load the checkpoint as it is.
    `ClassStatisticsHook` registers this hook.

    Args:
        class_statistics (ClassStatistics, optional): Counts of the training
            set, for a checkpoint without any. Defaults to None.
    """

    priority = 'VERY_HIGH'  # before EMAHook copies the loaded weights

    def __init__(
        self, class_statistics: ClassStatistics | None = None
    ) -> None:
        self.class_statistics = class_statistics

    def after_load_checkpoint(
        self, runner: Runner, checkpoint: dict[str, Any]
    ) -> None:
        """Convert the checkpoint in place, and check that it fits.

        Raises:
            LongTailError: See `find_loading_faults`.
        """
        if not starts_training(runner):
            return
        loaded = Checkpoint.of(checkpoint)
        self.convert(runner, loaded)
        faults = find_loading_faults(
            loaded.weights, unwrapped(runner.model), str(runner._load_from)
        )
        raise_or_log(faults, runner.logger.warning)

    def convert(self, runner: Runner, loaded: Checkpoint) -> None:
        """Convert the classifier of a checkpoint in place."""
        model = unwrapped(runner.model)
        if not hasattr(model, 'roi_head'):
            return
        try:
            converted = convert_checkpoint(
                loaded,
                runner.cfg,
                class_statistics=loaded.class_statistics
                or self.class_statistics,
                log=runner.logger.info,
            )
        except LongTailError as error:
            runner.logger.info(f'load_from is not converted: {error}')
            # mmengine prints weights of another shape, and does not log them.
            for name, parameter in model.named_parameters():
                found = loaded.weights.get(name, parameter).shape
                if found != parameter.shape:
                    runner.logger.info(
                        f'{name} is re-initialised: {tuple(found)} in the '
                        f'checkpoint, {tuple(parameter.shape)} in the model'
                    )
        else:
            loaded.weights.clear()
            loaded.weights.update(converted.weights)


@HOOKS.register_module()
class RestartClassifierHook(Hook):
    """Re-initialise the classifier instead of loading it by ``load_from``.

    The classifier (``fc_cls`` of each RoI head) keeps its initial weights, as
    in cRT (Kang et al., Decoupling Representation and Classifier for
    Long-Tailed Recognition, ICLR 2020, https://arxiv.org/abs/1910.09217,
    section 4.2). A resume and a test load it from the checkpoint.

    Raises:
        LongTailError: If the model has no RoI head with a classifier.
    """

    # After ConvertClassifierHook renames the weights of mmdet 1.x.
    priority = 'HIGH'

    def after_load_checkpoint(
        self, runner: Runner, checkpoint: dict[str, Any]
    ) -> None:
        """Remove the classifier from the checkpoint."""
        if not starts_training(runner):
            return
        weights = Checkpoint.of(checkpoint).weights
        for name in classifier_heads(unwrapped(runner.model)):
            for key in list(weights):
                if key.startswith(f'{name}.fc_cls.'):
                    del weights[key]
            runner.logger.info(f'{name}.fc_cls is re-initialised')

"""Class statistics of the training set for losses, metrics, checkpoints."""

import warnings
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

from mmdet.registry import HOOKS
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import BaseLoop, Runner
from torch import nn

from mmdet_longtail.engine.hooks.convert_classifier_hook import (
    ConvertClassifierHook,
    is_training,
    starts_training,
)
from mmdet_longtail.engine.hooks.finite_loss_hook import FiniteLossHook
from mmdet_longtail.engine.hooks.online_state_hook import OnlineStateHook
from mmdet_longtail.engine.run_faults import find_run_faults
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.losses.base import LongTailLoss
from mmdet_longtail.models.utils.bbox_heads import unwrapped
from mmdet_longtail.models.utils.head_support import (
    check_head_support,
    check_score_thr,
)
from mmdet_longtail.structures.annotation_faults import find_dropped_boxes
from mmdet_longtail.structures.annotations import read_annotations
from mmdet_longtail.structures.checkpoint import (
    CLASS_STATISTICS_KEY,
    Checkpoint,
)
from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.structures.findings import Severity, raise_or_log
from mmdet_longtail.utils.class_names import (
    check_same_classes,
    dataset_classes,
)


@HOOKS.register_module()
class ClassStatisticsHook(Hook):
    """Set the counts of the training set on all long-tail losses and metrics.

    Put it under ``default_hooks``, a dict that merges with any base::

        default_hooks = dict(
            class_statistics=dict(type='ClassStatisticsHook'))

    On a resume the counts of the checkpoint win, else those of the
    ``class_statistics`` file, else those of the training set, which rank 0
    counts. At test time losses have the counts of the checkpoint, and metrics
    those of the ``class_statistics`` file, else of the checkpoint; the
    training set is not built. Every checkpoint that is saved carries them.

    The hook registers a `ConvertClassifierHook`, a `FiniteLossHook` and an
    `OnlineStateHook`. The visualizer logs the counts, and what the losses
    derive from them, once: docs/logging.md.

    Args:
        class_statistics (str, optional): A file of
            ``ClassStatistics.save``. Defaults to None.

    Raises:
        LongTailError: If a loss is in a head that does not support it, or if
            checkpoint, file, training set or test set have other classes.
    """

    priority = 'VERY_HIGH'  # before EMAHook copies the model

    def __init__(self, class_statistics: str | Path | None = None) -> None:
        self.class_statistics = class_statistics
        self.statistics: ClassStatistics | None = None
        self.loaded: ClassStatistics | None = None

    def before_run(self, runner: Runner) -> None:
        """Determine the statistics, and set them on the losses.

        EMAHook and mmengine copy the model afterwards.
        """
        self.prepare(runner)
        if is_training(runner):
            faults = find_run_faults(runner)
            raise_or_log(faults, runner.logger.warning)

    def prepare(self, runner: Runner) -> None:
        """Check the model, and set the statistics of a training on losses."""
        model = unwrapped(runner.model)
        check_head_support(model)
        check_score_thr(model)
        if self.class_statistics is not None:
            self.statistics = ClassStatistics.load(self.class_statistics)
        if not is_training(runner):
            return
        dataset = runner.train_dataloader.dataset
        if self.statistics is None:
            log = runner.logger.warning
            self.statistics = count_on_main_rank(dataset, log)
        else:
            check_same_classes(
                dataset_classes(dataset) or self.statistics.class_names,
                self.statistics.class_names,
                'the training set',
                f'{self.class_statistics}',
            )
        set_on_losses(runner, self.statistics)
        for hook in (
            ConvertClassifierHook(self.statistics),
            FiniteLossHook(interval=50),
            OnlineStateHook(),
        ):
            if not any(isinstance(h, type(hook)) for h in runner.hooks):
                runner.register_hook(hook)

    def after_load_checkpoint(
        self, runner: Runner, checkpoint: dict[str, Any]
    ) -> None:
        """Check what a resume or a test loads, and keep its statistics."""
        Checkpoint.of(checkpoint).check_finite()
        if starts_training(runner):
            return
        loaded = Checkpoint.of(checkpoint)
        loaded.check_shapes(unwrapped(runner.model).named_parameters())
        for loop in (runner._train_loop, runner._val_loop, runner._test_loop):
            if isinstance(loop, BaseLoop):
                classes = dataset_classes(loop.dataloader.dataset)
                loaded.check_classes(classes, 'the dataset')
        self.loaded = loaded.class_statistics

    def before_train(self, runner: Runner) -> None:
        """Set the statistics again: load_from overwrites what is derived."""
        self.statistics = self.loaded or self.statistics
        assert self.statistics is not None
        set_on_losses(runner, self.statistics)
        log_statistics(runner, self.statistics)

    def before_val(self, runner: Runner) -> None:
        """Set the statistics on the metrics."""
        self._before_evaluation(runner, runner.val_loop)

    def before_test(self, runner: Runner) -> None:
        """Set the statistics on the metrics."""
        self._before_evaluation(runner, runner.test_loop)

    def before_save_checkpoint(
        self, runner: Runner, checkpoint: dict[str, Any]
    ) -> None:
        """Save the statistics, so that a test needs no training set."""
        if self.statistics is not None:
            checkpoint[CLASS_STATISTICS_KEY] = self.statistics.to_dict()

    def _before_evaluation(self, runner: Runner, loop: BaseLoop) -> None:
        self.statistics = self.statistics or self.loaded
        if self.statistics is not None:
            for metric in loop.evaluator.metrics:
                if hasattr(metric, 'set_class_statistics'):
                    metric.set_class_statistics(self.statistics)


def count_on_main_rank(
    dataset: Any, log: Callable[[str], Any] = warnings.warn
) -> ClassStatistics:
    """Count a dataset on rank 0, and broadcast the result or the error.

    The boxes that do not train are logged.
    """
    result: list[Any] = [None]
    if is_main_process():
        try:
            parts = read_annotations(dataset)
            result = [ClassStatistics.from_annotations(*parts)]
            for finding in chain.from_iterable(map(find_dropped_boxes, parts)):
                if finding.severity >= Severity.WARNING:
                    log(finding.message)
        except LongTailError as error:
            result = [error]
    broadcast_object_list(result)
    if isinstance(result[0], LongTailError):
        raise result[0]
    return result[0]


def set_on_losses(runner: Runner, statistics: ClassStatistics) -> None:
    """Set the statistics on the losses of the model and of EMAHook's copy."""
    copies = [
        hook.ema_model
        for hook in runner.hooks
        if isinstance(hook, EMAHook) and hasattr(hook, 'ema_model')
    ]
    for model in (unwrapped(runner.model), *copies):
        for loss in _losses(model):
            loss.set_class_statistics(statistics)


def log_statistics(runner: Runner, statistics: ClassStatistics) -> None:
    """Log the counts, and what the losses derive from them."""
    num_instances = int(statistics.instance_count.sum())
    scalars: dict[str, float] = {
        'class_statistics/num_images': statistics.num_images,
        'class_statistics/num_instances': num_instances,
    }
    sizes = {g.name: g.members.sum() for g in statistics.frequency_groups()}
    for name, size in sizes.items():
        scalars[f'class_statistics/num_{name}_classes'] = int(size)
    lines: dict[str, None] = {}
    for loss in _losses(unwrapped(runner.model)):  # of a cascade alike
        kind = type(loss).__name__
        for name, value in loss.describe(statistics).items():
            scalars[f'{kind}/{name}'] = value
        for line in loss.describe_classes(statistics):
            lines[f'{kind}: {line}'] = None
    runner.visualizer.add_scalars(scalars, step=runner.iter)
    groups = ', '.join(f'{size} {name}' for name, size in sizes.items())
    runner.logger.info(
        f'Class statistics: {statistics.num_classes} classes ({groups}), '
        f'{num_instances} instances in {statistics.num_images} images'
    )
    for line in lines:
        runner.logger.info(line)


def _losses(model: nn.Module) -> list[LongTailLoss]:
    return [m for m in model.modules() if isinstance(m, LongTailLoss)]

"""Moves the class statistics into losses, metrics and checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmdet.registry import HOOKS
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.evaluator import Evaluator
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import BaseLoop, Runner
from torch import nn

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.losses.base import LongTailLoss, warn_once
from mmdet_longtail.models.utils.classifier_conversion import (
    convert_checkpoint,
)
from mmdet_longtail.models.utils.head_support import check_head_support
from mmdet_longtail.models.utils.wrappers import unwrapped
from mmdet_longtail.structures.checkpoint import (
    CLASS_STATISTICS_KEY,
    Checkpoint,
)
from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.utils.class_names import (
    check_same_classes,
    dataset_classes,
)

# mmdet's default of 0.05 is above most scores of tail classes.
LARGEST_SCORE_THR = 1e-2


@HOOKS.register_module()
class ClassStatisticsHook(Hook):
    """Gives every long-tail loss and metric the counts of the training set.

    Put it under ``default_hooks``, a dict that merges with any base::

        default_hooks = dict(
            class_statistics=dict(type='ClassStatisticsHook'))

    Who wins: on a resume the checkpoint, else the ``class_statistics`` file,
    else the training set, which rank 0 counts. At test time everything comes
    from the checkpoint, and the training set is not built.

    A detector that ``load_from`` brings may have been trained with another
    loss: its classifier is given the layout of this one, row by row of the
    classes (:func:`convert_checkpoint`). Where that cannot be, such as with
    other classes, the classifier starts anew.

    What it has counted, and what the losses make of it, is logged once by the
    visualizer: docs/logging.md.

    Args:
        class_statistics (str, optional): A file of
            ``ClassStatistics.save``. Defaults to None.

    Raises:
        LongTailError: If a loss is in a head that it does not work in; if
            checkpoint, file, training set or test set are of different
            classes; or if a checkpoint without statistics is tested.
    """

    priority = 'VERY_HIGH'  # before EMAHook copies the model

    def __init__(self, class_statistics: str | Path | None = None) -> None:
        self.class_statistics = class_statistics
        self.statistics: ClassStatistics | None = None
        self.loaded: ClassStatistics | None = None

    def before_run(self, runner: Runner) -> None:
        """Count and fill, before EMA copies and rank 0's model is spread."""
        check_head_support(unwrapped(runner.model))
        if self.class_statistics is not None:
            self.statistics = ClassStatistics.load(self.class_statistics)
        if not self._is_training(runner):
            return
        dataset = runner.train_dataloader.dataset
        if self.statistics is None:
            self.statistics = self._count(dataset)
        else:
            check_same_classes(
                dataset_classes(dataset) or self.statistics.class_names,
                self.statistics.class_names,
                'the training set',
                f'{self.class_statistics}',
            )
        self._fill(runner, self.statistics)

    def after_load_checkpoint(
        self, runner: Runner, checkpoint: dict[str, Any]
    ) -> None:
        """Learn what came, and refuse a checkpoint of something else."""
        loaded = Checkpoint.of(checkpoint)
        is_continued = not self._is_training(runner) or runner._resume
        if not is_continued:
            self._keep_class_rows(runner, loaded)
        self._check_classifier(runner, loaded, is_continued)
        if not is_continued:
            return
        for dataset in self._datasets(runner):
            loaded.check_classes(dataset_classes(dataset), 'the dataset')
        self.loaded = loaded.class_statistics

    def before_train(self, runner: Runner) -> None:
        """Fill again: load_from may have brought the counts of other data."""
        if self.loaded is not None:
            self.statistics = self.loaded
        assert self.statistics is not None
        self._fill(runner, self.statistics)
        group = self.statistics.frequency_group()
        runner.logger.info(
            f'Class statistics: {len(group)} classes ('
            f'{group.count("rare")} rare, {group.count("common")} common, '
            f'{group.count("frequent")} frequent), '
            f'{self.statistics.instance_count.sum()} instances in '
            f'{self.statistics.num_images} images'
        )
        runner.visualizer.add_scalars(
            self._describe(runner, self.statistics), step=runner.iter
        )

    def before_val(self, runner: Runner) -> None:
        """Hand the statistics to the metrics."""
        self._before_evaluation(runner, runner.val_loop.evaluator)

    def before_test(self, runner: Runner) -> None:
        """Hand the statistics to the metrics."""
        self._before_evaluation(runner, runner.test_loop.evaluator)

    def before_save_checkpoint(
        self, runner: Runner, checkpoint: dict[str, Any]
    ) -> None:
        """Keep the statistics, so that a test needs no training set."""
        if self.statistics is not None:
            checkpoint[CLASS_STATISTICS_KEY] = self.statistics.to_dict()

    # ---------------------------------------------------------------------

    @staticmethod
    def _is_training(runner: Runner) -> bool:
        # `runner.train_loop` would build the training set of a test run.
        return isinstance(runner._train_loop, BaseLoop)

    @staticmethod
    def _count(dataset: Any) -> ClassStatistics:
        """Count on rank 0; an error there is an error everywhere."""
        result: list[Any] = [None]
        if is_main_process():
            try:
                result = [ClassStatistics.from_dataset(dataset)]
            except LongTailError as error:
                result = [error]
        broadcast_object_list(result)
        if isinstance(result[0], LongTailError):
            raise result[0]
        return result[0]

    @staticmethod
    def _losses(runner: Runner) -> Iterator[LongTailLoss]:
        models = [unwrapped(runner.model)]
        models += [
            hook.ema_model
            for hook in runner.hooks
            if isinstance(hook, EMAHook) and hasattr(hook, 'ema_model')
        ]
        for model in models:
            for module in model.modules():
                if isinstance(module, LongTailLoss):
                    yield module

    @staticmethod
    def _describe(
        runner: Runner, statistics: ClassStatistics
    ) -> dict[str, float]:
        """Sum up the tail in numbers, and what the losses make of it."""
        described: dict[str, float] = {
            'class_statistics/num_images': statistics.num_images,
            'class_statistics/num_instances': int(
                statistics.instance_count.sum()
            ),
        }
        for group in statistics.frequency_groups():
            name = f'class_statistics/num_{group.name}_classes'
            described[name] = int(group.members.sum())
        for module in unwrapped(runner.model).modules():
            if isinstance(module, LongTailLoss):
                # The stages of a cascade have the same loss.
                for name, value in module.describe(statistics).items():
                    described[f'{type(module).__name__}/{name}'] = value
        return described

    def _fill(self, runner: Runner, statistics: ClassStatistics) -> None:
        for loss in self._losses(runner):
            loss.set_class_statistics(statistics)

    def _datasets(self, runner: Runner) -> list[Any]:
        loops = (runner._train_loop, runner._val_loop, runner._test_loop)
        return [
            loop.dataloader.dataset
            for loop in loops
            if isinstance(loop, BaseLoop)
        ]

    def _keep_class_rows(self, runner: Runner, checkpoint: Checkpoint) -> None:
        """Begin where the classifier of another loss ended."""
        if not hasattr(unwrapped(runner.model), 'roi_head'):
            return
        try:
            converted = convert_checkpoint(
                checkpoint,
                runner.cfg,
                class_statistics=checkpoint.class_statistics
                or self.statistics,
                say=runner.logger.info,
            )
        except LongTailError as error:
            runner.logger.info(f'load_from is not converted: {error}')
            return
        checkpoint.weights.clear()
        checkpoint.weights.update(converted.weights)

    @staticmethod
    def _check_classifier(
        runner: Runner, checkpoint: Checkpoint, is_continued: bool
    ) -> None:
        """Compare the channels of the classifiers."""
        loaded = checkpoint.weights
        for name, parameter in unwrapped(runner.model).named_parameters():
            if not name.endswith('fc_cls.weight') or name not in loaded:
                continue
            found, expected = len(loaded[name]), len(parameter)
            if found == expected:
                continue
            layer = name.removesuffix('.weight')
            if is_continued:
                raise LongTailError(
                    f'{layer} has {found} channels in the checkpoint, but '
                    f'{expected} in this config: the checkpoint is of '
                    'another loss or of other classes; use the config that '
                    'it was trained with'
                )
            runner.logger.info(
                f'{layer} has {found} channels in the checkpoint and '
                f'{expected} here: it starts anew'
            )

    def _before_evaluation(self, runner: Runner, evaluator: Evaluator) -> None:
        model = unwrapped(runner.model)
        if self.loaded is not None and self.statistics is None:
            self.statistics = self.loaded
        for name, module in model.named_modules():
            if (
                isinstance(module, LongTailLoss)
                and module.predicts_with_class_statistics
                and not module.has_class_statistics
            ):
                raise LongTailError(
                    f'{name} has no class statistics, and the checkpoint '
                    'brought none: test a checkpoint that was trained with '
                    f'{type(module).__name__}'
                )
        self._check_score_thr(model)
        if self.statistics is not None:
            for metric in evaluator.metrics:
                if hasattr(metric, 'set_class_statistics'):
                    metric.set_class_statistics(self.statistics)

    @staticmethod
    def _check_score_thr(model: nn.Module) -> None:
        test_cfg = getattr(model, 'test_cfg', None) or {}
        score_thr = (test_cfg.get('rcnn') or test_cfg).get('score_thr', 0)
        has_loss = any(isinstance(m, LongTailLoss) for m in model.modules())
        if has_loss and score_thr > LARGEST_SCORE_THR:
            warn_once(
                f'model.test_cfg.rcnn.score_thr={score_thr} drops most '
                'detections of tail classes, whose scores are small: set '
                'score_thr=1e-4 and max_per_img=300'
            )

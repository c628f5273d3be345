"""Logs what the classification loss does to each group of classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet_longtail.engine.hooks.class_statistics_hook import (
    ClassStatisticsHook,
)
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.utils.classifier_recorder import ClassifierRecorder
from mmdet_longtail.models.utils.wrappers import unwrapped


@HOOKS.register_module()
class ClassifierMonitorHook(Hook):
    """Logs gradients and probabilities of rare, common, frequent classes.

    Every ``interval`` iterations, over the RoIs of that iteration on all
    ranks, the scalars ``classifier/<group>/<measure>``:

    - ``positive_rois``: how many RoIs are of a class of the group.
    - ``gradient_positive``, ``gradient_foreground_negative``,
      ``gradient_background_negative``: mean over the classes of the group;
      see ``mmdet_longtail.models.utils.classifier_recorder.ClassifierRecorder``.
    - ``probability``: mean over the positive RoIs of the group of the
      probability of their class; keeps its last value when there are none.
    - ``weight_norm``: mean over the classes of the length of their row of
      ``fc_cls``.

    They stay until the next monitored iteration, so let ``interval`` be that
    of the LoggerHook. Other iterations cost nothing. To switch it on::

        default_hooks = dict(
            classifier_monitor=dict(type='ClassifierMonitorHook'))

    Args:
        interval (int): Iterations from one to the next. Defaults to 50.

    Raises:
        LongTailError: If interval is not positive, the detector has no RoI
            head with a classifier, or there is no ClassStatisticsHook.
    """

    priority = 'NORMAL'  # before LoggerHook

    def __init__(self, interval: int = 50) -> None:
        if interval < 1:
            raise LongTailError(
                f'ClassifierMonitorHook: interval is {interval}, expected at '
                'least 1 iteration'
            )
        self.interval = interval
        self.recorder: ClassifierRecorder | None = None

    def before_train(self, runner: Runner) -> None:
        """Learn the groups, and whether there is a classifier."""
        statistics = next(
            (
                hook.statistics
                for hook in runner.hooks
                if isinstance(hook, ClassStatisticsHook)
            ),
            None,
        )
        if statistics is None:
            raise LongTailError(
                'ClassifierMonitorHook: there are no class statistics to '
                'group classes by; add default_hooks=dict(class_statistics='
                "dict(type='ClassStatisticsHook')) to the config"
            )
        self.members = {
            group.name: group.members
            for group in statistics.frequency_groups()
            if group.members.any()
        }
        ClassifierRecorder(unwrapped(runner.model))

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None
    ) -> None:
        """Listen in the iterations that are monitored."""
        if self.every_n_train_iters(runner, self.interval):
            self.recorder = ClassifierRecorder(unwrapped(runner.model))
            self.recorder.start()

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict[str, Any] | None = None,
    ) -> None:
        """Add the ranks up and log."""
        if self.recorder is None:
            return
        self.recorder.stop()
        self.recorder.sum_over_ranks()
        measures = self.recorder.measures()
        self.recorder = None
        rois = measures['positive_rois']
        for group, members in self.members.items():
            values = {
                name: values[members].mean()
                for name, values in measures.items()
            }
            values['positive_rois'] = rois[members].sum()
            del values['probability']
            if values['positive_rois'] > 0:
                present = members & (rois > 0)
                values['probability'] = np.average(
                    measures['probability'][present], weights=rois[present]
                )
            for name, value in values.items():
                runner.message_hub.update_scalar(
                    f'train/classifier/{group}/{name}', float(value)
                )

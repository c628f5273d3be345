"""Logging of gradients and probabilities per frequency group."""

from typing import Any

import numpy as np
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet_longtail.engine.hooks.class_statistics_hook import (
    ClassStatisticsHook,
)
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.utils.bbox_heads import unwrapped
from mmdet_longtail.models.utils.classifier_recorder import ClassifierRecorder


@HOOKS.register_module()
class ClassifierMonitorHook(Hook):
    """Log gradients and probabilities per frequency group.

    Every ``interval`` iterations, the hook logs the following scalars over
    the RoIs of all ranks, as ``classifier/<group>/<measure>``:

    - ``positive_rois``: number of RoIs of the group's classes.
    - ``gradient_positive``, ``gradient_foreground_negative``,
      ``gradient_background_negative``: mean over the group's classes, see
      ``ClassifierRecorder``.
    - ``probability``: mean over the group's positive RoIs of the probability
      of their class. Without such RoIs the last value stays.
    - ``weight_norm``: mean over the group's classes of the L2 norm of their
      row of ``fc_cls``.

    Values stay until the next monitored iteration: use the ``interval`` of
    the LoggerHook. Example::

        default_hooks = dict(
            classifier_monitor=dict(type='ClassifierMonitorHook'))

    Args:
        interval (int): Iterations between two measurements. Defaults to 50.

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
        """Prepare the groups, and check that the model has a classifier."""
        hooks = [h for h in runner.hooks if isinstance(h, ClassStatisticsHook)]
        if not hooks or hooks[0].statistics is None:
            raise LongTailError(
                'ClassifierMonitorHook: there are no class statistics to '
                'group classes by; add default_hooks=dict(class_statistics='
                "dict(type='ClassStatisticsHook')) to the config"
            )
        self.members = {
            group.name: group.members
            for group in hooks[0].statistics.frequency_groups()
            if group.members.any()
        }
        ClassifierRecorder(unwrapped(runner.model))

    def before_train_iter(self, runner: Runner, **kwargs: Any) -> None:
        """Start to record a monitored iteration."""
        if self.every_n_train_iters(runner, self.interval):
            self.recorder = ClassifierRecorder(unwrapped(runner.model))
            self.recorder.start()

    def after_train_iter(self, runner: Runner, **kwargs: Any) -> None:
        """Sum over the ranks, and log."""
        if self.recorder is None:
            return
        self.recorder.stop()
        self.recorder.sum_over_ranks()
        measures = self.recorder.measures()
        self.recorder = None
        rois = measures.pop('positive_rois')
        probability = measures.pop('probability')
        for group, members in self.members.items():
            values = {name: v[members].mean() for name, v in measures.items()}
            values['positive_rois'] = rois[members].sum()
            present = members & (rois > 0)
            if present.any():
                values['probability'] = np.average(
                    probability[present], weights=rois[present]
                )
            for name, value in values.items():
                runner.message_hub.update_scalar(
                    f'train/classifier/{group}/{name}', float(value)
                )

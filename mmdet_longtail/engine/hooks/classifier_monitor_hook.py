"""Logging of gradients and probabilities per frequency group."""

from typing import Any

import numpy as np
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet_longtail.engine.hooks.class_statistics_hook import (
    ClassStatisticsHook,
)
from mmdet_longtail.errors import check
from mmdet_longtail.models.utils.bbox_heads import unwrapped
from mmdet_longtail.models.utils.classifier_recorder import ClassifierRecorder


@HOOKS.register_module()
class ClassifierMonitorHook(Hook):
    """Log gradients and probabilities per frequency group.

    Every ``interval`` iterations, the hook logs the following scalars over
    the RoIs of all ranks, as ``classifier/<group>/<measure>``:

    - ``positive_rois``: number of RoIs of the group's classes.
    - ``probability``: mean over the group's positive RoIs of the probability
      of their class. Without such RoIs the last value stays.
    - ``gradient_positive``, ``gradient_foreground_negative``,
      ``gradient_background_negative``, ``weight_norm``: mean over the group's
      classes, see ``ClassifierRecorder``.

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
    recorder: ClassifierRecorder

    def __init__(self, interval: int = 50) -> None:
        check(
            interval >= 1,
            f'ClassifierMonitorHook: interval is {interval}, expected at '
            'least 1 iteration',
        )
        self.interval = interval

    def before_train(self, runner: Runner) -> None:
        """Prepare the groups and the recorder of the classifier."""
        groups = [
            hook.statistics.frequency_groups()
            for hook in runner.hooks
            if isinstance(hook, ClassStatisticsHook) and hook.statistics
        ]
        check(
            groups,
            'ClassifierMonitorHook: there are no class statistics to group '
            'classes by; add default_hooks=dict(class_statistics='
            "dict(type='ClassStatisticsHook')) to the config",
        )
        self.groups = groups[0]
        self.recorder = ClassifierRecorder(unwrapped(runner.model))

    def before_train_iter(self, runner: Runner, **kwargs: Any) -> None:
        """Start to record a monitored iteration."""
        if self.every_n_train_iters(runner, self.interval):
            self.recorder.sums.zero_()
            self.recorder.start()

    def after_train_iter(self, runner: Runner, **kwargs: Any) -> None:
        """Log the record of a monitored iteration."""
        if not self.every_n_train_iters(runner, self.interval):
            return
        self.recorder.stop()
        self.recorder.sum_over_ranks()
        measures = self.recorder.measures()
        rois = measures.pop('positive_rois')
        probability = measures.pop('probability')
        for group in self.groups:
            members = group.members
            if not members.any():
                continue
            values = {name: v[members].mean() for name, v in measures.items()}
            values['positive_rois'] = rois[members].sum()
            present = members & (rois > 0)
            if present.any():
                values['probability'] = np.average(
                    probability[present], weights=rois[present]
                )
            for name, value in values.items():
                runner.message_hub.update_scalar(
                    f'train/classifier/{group.name}/{name}', float(value)
                )

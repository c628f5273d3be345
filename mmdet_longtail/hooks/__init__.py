"""Hooks that long-tail training needs."""

from .class_statistics import ClassStatisticsHook
from .classifier_monitor import ClassifierMonitorHook
from .restart_classifier import RestartClassifierHook
from .train_only import TrainOnlyHook

__all__ = [
    'ClassStatisticsHook',
    'ClassifierMonitorHook',
    'RestartClassifierHook',
    'TrainOnlyHook',
]

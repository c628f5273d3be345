"""Hooks that long-tail training needs."""

from .class_statistics import ClassStatisticsHook
from .classifier_monitor import ClassifierMonitorHook
from .finite_loss import FiniteLossHook
from .preemption import PreemptionHook
from .restart_classifier import RestartClassifierHook
from .train_only import TrainOnlyHook
from .whole_checkpoint import WholeCheckpointHook

__all__ = [
    'ClassStatisticsHook',
    'ClassifierMonitorHook',
    'FiniteLossHook',
    'PreemptionHook',
    'RestartClassifierHook',
    'TrainOnlyHook',
    'WholeCheckpointHook',
]

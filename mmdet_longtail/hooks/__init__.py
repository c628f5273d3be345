"""Hooks that long-tail training needs."""

from .class_statistics import ClassStatisticsHook
from .train_only import TrainOnlyHook

__all__ = ['ClassStatisticsHook', 'TrainOnlyHook']

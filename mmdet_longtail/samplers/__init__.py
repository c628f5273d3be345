"""Samplers that show rare classes more often."""

from .class_aware import ClassAwareImageSampler
from .repeat_factor import (
    InstanceAwareRepeatFactorSampler,
    RepeatFactorSampler,
    repeat_factors,
)
from .seeded_batch import SeededBatchSampler

__all__ = [
    'ClassAwareImageSampler',
    'InstanceAwareRepeatFactorSampler',
    'RepeatFactorSampler',
    'SeededBatchSampler',
    'repeat_factors',
]

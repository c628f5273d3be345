"""Samplers that show rare classes more often."""

from .class_aware import ClassAwareImageSampler
from .repeat_factor import (
    InstanceAwareRepeatFactorSampler,
    RepeatFactorSampler,
    repeat_factors,
)

__all__ = [
    'ClassAwareImageSampler',
    'InstanceAwareRepeatFactorSampler',
    'RepeatFactorSampler',
    'repeat_factors',
]

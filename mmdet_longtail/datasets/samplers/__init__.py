"""Samplers that show rare classes more often."""

from mmdet_longtail.datasets.samplers.class_aware import ClassAwareImageSampler
from mmdet_longtail.datasets.samplers.repeat_factor import (
    InstanceAwareRepeatFactorSampler,
    RepeatFactorSampler,
)
from mmdet_longtail.datasets.samplers.seeded_batch import SeededBatchSampler

__all__ = [
    'ClassAwareImageSampler',
    'InstanceAwareRepeatFactorSampler',
    'RepeatFactorSampler',
    'SeededBatchSampler',
]

"""mmdet's RoI heads with what a bbox head alone cannot know."""

from mmdet_longtail.models.roi_heads.long_tail_roi_head import (
    LongTailCascadeRoIHead,
    LongTailHybridTaskCascadeRoIHead,
    LongTailRoIHeadMixin,
    LongTailStandardRoIHead,
    find_verified_classes,
)

__all__ = [
    'LongTailCascadeRoIHead',
    'LongTailHybridTaskCascadeRoIHead',
    'LongTailRoIHeadMixin',
    'LongTailStandardRoIHead',
    'find_verified_classes',
]

"""mmdet's RoI heads with what a bbox head alone cannot know."""

from .long_tail import (
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

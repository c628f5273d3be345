"""mmdet's bbox heads with what a loss alone cannot do."""

from .long_tail import (
    LongTailBBoxHead,
    LongTailBBoxHeadMixin,
    LongTailConvFCBBoxHead,
    LongTailShared2FCBBoxHead,
    LongTailShared4Conv1FCBBoxHead,
)
from .nearest_class_mean import (
    NearestClassMeanConvFCBBoxHead,
    NearestClassMeanMixin,
    NearestClassMeanShared2FCBBoxHead,
    NearestClassMeanShared4Conv1FCBBoxHead,
    nearest_class_mean_scores,
)
from .nms import multiclass_nms_of_best

__all__ = [
    'LongTailBBoxHead',
    'LongTailBBoxHeadMixin',
    'LongTailConvFCBBoxHead',
    'LongTailShared2FCBBoxHead',
    'LongTailShared4Conv1FCBBoxHead',
    'NearestClassMeanConvFCBBoxHead',
    'NearestClassMeanMixin',
    'NearestClassMeanShared2FCBBoxHead',
    'NearestClassMeanShared4Conv1FCBBoxHead',
    'multiclass_nms_of_best',
    'nearest_class_mean_scores',
]

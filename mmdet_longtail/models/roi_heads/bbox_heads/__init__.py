"""mmdet's bbox heads for many classes."""

from mmdet_longtail.models.layers.multiclass_nms import multiclass_nms_of_best
from mmdet_longtail.models.roi_heads.bbox_heads.class_mean_bbox_head import (
    NearestClassMeanConvFCBBoxHead,
    NearestClassMeanShared2FCBBoxHead,
    NearestClassMeanShared4Conv1FCBBoxHead,
    nearest_class_mean_scores,
)
from mmdet_longtail.models.roi_heads.bbox_heads.long_tail_bbox_head import (
    LongTailBBoxHead,
    LongTailBBoxHeadMixin,
    LongTailConvFCBBoxHead,
    LongTailShared2FCBBoxHead,
    LongTailShared4Conv1FCBBoxHead,
)

"""mmdet's RoI heads for federated datasets, and mask heads."""

from mmdet_longtail.models.roi_heads.long_tail_roi_head import (
    LongTailCascadeRoIHead,
    LongTailHybridTaskCascadeRoIHead,
    LongTailRoIHeadMixin,
    LongTailStandardRoIHead,
    find_verified_classes,
)
from mmdet_longtail.models.roi_heads.mask_heads import OptionalMaskFCNMaskHead

"""Skip losses without a trainable parameter.

When only the classifier of a detector trains, the losses of the RPN, of the
boxes and of the masks are constants: they cost time and have no gradient.
"""

from collections.abc import Collection
from types import MethodType
from typing import Any

from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.roi_heads import (
    CascadeRoIHead,
    SCNetRoIHead,
    StandardRoIHead,
)
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from torch import Tensor, nn

from mmdet_longtail.models.roi_heads.bbox_heads.long_tail_bbox_head import (
    LongTailBBoxHeadMixin,
)

KNOWN_LOSSES = (BBoxHead.loss, LongTailBBoxHeadMixin.loss)


def skip_frozen_losses(model: Any, trained: Collection[str]) -> list[str]:
    """Make a detector compute only the losses that its training needs.

    Proposals, RoIs and detections are unchanged. Heads that override their
    loss in a way that is not known here keep all their losses.

    Args:
        model (nn.Module): The detector, not wrapped; changed in place.
        trained (Collection[str]): Names of the trainable parameters.

    Returns:
        list[str]: Names of the heads whose loss is skipped.
    """
    if not all(name.startswith('roi_head.bbox_head.') for name in trained):
        return []
    skipped = []
    rpn_head = getattr(model, 'rpn_head', None)
    if (
        isinstance(rpn_head, BaseDenseHead)
        and type(rpn_head).loss_and_predict is BaseDenseHead.loss_and_predict
    ):
        rpn_head.loss_by_feat = MethodType(_no_losses, rpn_head)
        skipped.append('rpn_head')
    roi_head = model.roi_head
    if (
        isinstance(roi_head, StandardRoIHead | CascadeRoIHead)
        and not isinstance(roi_head, SCNetRoIHead)
        and roi_head.with_mask
    ):
        roi_head.mask_loss = MethodType(_no_mask_loss, roi_head)
        skipped.append('roi_head.mask_head')
    if all('.fc_cls.' in name for name in trained):
        for name, head in roi_head.named_modules(prefix='roi_head'):
            if isinstance(head, BBoxHead) and type(head).loss in KNOWN_LOSSES:
                head.loss = MethodType(_loss_without_boxes, head)
                skipped.append(f'{name} (boxes)')
    return skipped


# As methods of the module they are copied with it by EMAHook.


def _no_losses(self: nn.Module, *args: Any, **kwargs: Any) -> dict:
    return {}


def _no_mask_loss(self: nn.Module, *args: Any, **kwargs: Any) -> dict:
    return {'loss_mask': {}}


def _loss_without_boxes(
    self: Any, cls_score: Tensor, bbox_pred: Any, *args: Any, **kwargs: Any
) -> dict[str, Tensor]:
    return type(self).loss(self, cls_score, None, *args, **kwargs)

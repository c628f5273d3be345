"""mmdet's bbox heads with exact fast NMS and image-level labels per RoI."""

from contextlib import nullcontext
from typing import Any

from mmdet.models.roi_heads.bbox_heads import (
    BBoxHead,
    ConvFCBBoxHead,
    Shared2FCBBoxHead,
    Shared4Conv1FCBBoxHead,
)
from mmdet.models.task_modules import SamplingResult
from mmdet.registry import MODELS
from mmdet.utils import InstanceList
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_longtail.models.layers.multiclass_nms import multiclass_nms_of_best
from mmdet_longtail.models.losses.base import ImageLevelLabels


class LongTailBBoxHeadMixin(ImageLevelLabels):
    """Mixin of bbox heads for many classes.

    Detections are those of mmdet's head, found fast when there are many
    classes: see :func:`multiclass_nms_of_best`.

    A batch without RoIs has a classification loss of zero. Without this loss,
    as in mmdet, ``fc_cls`` has no gradient, and DistributedDataParallel
    raises an error about unused parameters. In a cascade such a batch goes
    through all stages, for the same reason.

    A loss with ``uses_verified_classes`` receives the image-level labels of
    each RoI that the RoI heads of this package set.
    """

    num_classes: int
    reg_class_agnostic: bool
    loss_cls: Any

    def _predict_by_feat_single(
        self,
        roi: Tensor,
        cls_score: Tensor,
        bbox_pred: Tensor | None,
        img_meta: dict[str, Any],
        rescale: bool = False,
        rcnn_test_cfg: ConfigDict | None = None,
    ) -> InstanceData:
        predict = super()._predict_by_feat_single  # type: ignore[misc]
        arguments = (roi, cls_score, bbox_pred, img_meta, rescale)
        if rcnn_test_cfg is None or len(roi) == 0:
            return predict(*arguments, rcnn_test_cfg)
        # Without a config mmdet stops before NMS.
        raw = predict(*arguments, None)
        is_shared = self.reg_class_agnostic or bbox_pred is None
        dets, labels = multiclass_nms_of_best(
            raw.bboxes,
            raw.scores,
            rcnn_test_cfg.score_thr,
            rcnn_test_cfg.nms,
            rcnn_test_cfg.max_per_img,
            raw.bboxes.size(1) // (1 if is_shared else self.num_classes),
        )
        return InstanceData(
            bboxes=dets[:, :-1], scores=dets[:, -1], labels=labels
        )

    def loss(
        self,
        cls_score: Tensor,
        bbox_pred: Tensor | None,
        rois: Tensor,
        labels: Tensor,
        label_weights: Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> dict[str, Tensor]:
        context: Any = nullcontext()
        if self.verified_classes is not None:
            of_rois = self.verified_classes[rois[:, 0].long()]  # (N, C)
            context = self.loss_cls.verifying(of_rois)
        targets = (labels, label_weights, *args)
        with context:
            losses = super().loss(  # type: ignore[misc]
                cls_score, bbox_pred, rois, *targets, **kwargs
            )
            if len(rois) == 0:
                loss_cls = self.loss_cls(
                    cls_score, labels, label_weights, avg_factor=1.0
                )
                if not isinstance(loss_cls, dict):
                    loss_cls = {'loss_cls': loss_cls}
                losses.update(loss_cls)
        return losses

    def refine_bboxes(
        self,
        sampling_results: list[SamplingResult] | InstanceList,
        bbox_results: dict[str, Any],
        batch_img_metas: list[dict[str, Any]],
    ) -> InstanceList:
        refined = super().refine_bboxes(  # type: ignore[misc]
            sampling_results, bbox_results, batch_img_metas
        )
        if refined is None:  # no RoIs
            no_bboxes = bbox_results['rois'][:, 1:]
            refined = [InstanceData(bboxes=no_bboxes) for _ in batch_img_metas]
        return refined


@MODELS.register_module()
class LongTailBBoxHead(LongTailBBoxHeadMixin, BBoxHead):
    """mmdet's ``BBoxHead``, as in C4 detectors, for many classes."""


@MODELS.register_module()
class LongTailShared2FCBBoxHead(LongTailBBoxHeadMixin, Shared2FCBBoxHead):
    """mmdet's ``Shared2FCBBoxHead`` for many classes."""


@MODELS.register_module()
class LongTailShared4Conv1FCBBoxHead(
    LongTailBBoxHeadMixin, Shared4Conv1FCBBoxHead
):
    """mmdet's ``Shared4Conv1FCBBoxHead`` for many classes."""


@MODELS.register_module()
class LongTailConvFCBBoxHead(LongTailBBoxHeadMixin, ConvFCBBoxHead):
    """mmdet's ``ConvFCBBoxHead`` for many classes."""

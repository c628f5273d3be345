"""Deformable DETR head whose encoder keeps a plain loss."""

from typing import Any

from mmdet.models.dense_heads import DeformableDETRHead
from mmdet.registry import MODELS
from torch import Tensor, nn

ENCODER_LOSS = dict(
    type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0
)
"""The classification loss of mmdet's Deformable DETR."""


@MODELS.register_module()
class LongTailDeformableDETRHead(DeformableDETRHead):
    """mmdet's ``DeformableDETRHead`` for losses with class statistics.

    The encoder of the two-stage model separates objects from background. In
    mmdet its loss has label 0 for every object, which a loss with class
    statistics would take for class 0. Here the encoder has its own loss.

    Args:
        encoder_loss_cls (dict): The encoder's classification loss, of C
            columns and labels 0 (object) and C (background). Defaults to
            mmdet's focal loss.
        **kwargs: Arguments of mmdet's head.
    """

    def __init__(
        self, *args: Any, encoder_loss_cls: Any = ENCODER_LOSS, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.encoder_loss_cls = MODELS.build(encoder_loss_cls)

    def loss_by_feat(
        self,
        all_layers_cls_scores: Tensor,
        all_layers_bbox_preds: Tensor,
        enc_cls_scores: Tensor | None,
        enc_bbox_preds: Tensor | None,
        batch_gt_instances: list[Any],
        batch_img_metas: list[dict[str, Any]],
        batch_gt_instances_ignore: list[Any] | None = None,
    ) -> dict[str, Tensor]:
        predictions = (all_layers_cls_scores, all_layers_bbox_preds)
        batch = (batch_gt_instances, batch_img_metas)
        losses = super().loss_by_feat(
            *predictions, None, None, *batch, batch_gt_instances_ignore
        )
        if enc_cls_scores is None:
            return losses
        objects = [instances.clone() for instances in batch_gt_instances]
        for instances in objects:
            instances.labels = instances.labels.new_zeros(len(instances))
        decoder_loss_cls: nn.Module = self.loss_cls
        self.loss_cls: nn.Module = self.encoder_loss_cls
        try:
            encoder_losses = self.loss_by_feat_single(
                enc_cls_scores, enc_bbox_preds, objects, batch_img_metas
            )
        finally:
            self.loss_cls = decoder_loss_cls
        names = ('enc_loss_cls', 'enc_loss_bbox', 'enc_loss_iou')
        return losses | dict(zip(names, encoder_losses, strict=True))

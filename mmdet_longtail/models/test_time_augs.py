"""Test-time augmentation of boxes and masks.

Shapes: V views of B images, n_b merged boxes in image b, N their sum.
"""

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.models.test_time_augs import DetTTAModel
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi, bbox_flip
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet_longtail.errors import LongTailError

FLIPPED_AXES = {'horizontal': [-1], 'vertical': [-2], 'diagonal': [-2, -1]}


@MODELS.register_module()
class MaskTTAModel(DetTTAModel):
    """Test-time augmentation for masks, which mmdet's ``DetTTAModel`` lacks.

    Boxes are the NMS of the boxes of all views. The mask head predicts these
    boxes in each view. The mask is where the mean of its probabilities over
    the views reaches ``mask_thr_binary``. The features of all views of a
    batch are in memory at once.

    Args:
        module (dict or nn.Module): A two-stage detector with mmdet's
            ``StandardRoIHead`` and ``FCNMaskHead``, or heads derived from
            them.
        tta_cfg (dict, optional): ``nms`` and ``max_per_img`` of the merged
            boxes. Defaults to the detector's own.
        mask_views (Sequence[int], optional): Positions of the views whose
            masks are averaged. Defaults to all.
        **kwargs: Arguments of ``DetTTAModel``.

    Raises:
        LongTailError: If the detector predicts masks in another way, or
            ``mask_views`` has a position that is no view.
    """

    def __init__(
        self,
        module: dict | nn.Module,
        tta_cfg: dict | None = None,
        mask_views: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(module=module, tta_cfg=tta_cfg, **kwargs)
        head: Any = getattr(self.module, 'roi_head', None)
        predict_mask = getattr(type(head), 'predict_mask', None)
        if (
            predict_mask is not StandardRoIHead.predict_mask
            or not head.with_mask
        ):
            raise LongTailError(
                'MaskTTAModel: expected a detector whose roi_head makes masks '
                f'as StandardRoIHead does, found {type(self.module).__name__} '
                f'with {type(head).__name__}; DetTTAModel merges boxes'
            )
        test_cfg = self.module.test_cfg.rcnn
        self.tta_cfg = ConfigDict(
            tta_cfg or dict(nms=test_cfg.nms, max_per_img=test_cfg.max_per_img)
        )
        self.mask_views = mask_views

    @torch.no_grad()
    def test_step(self, data: dict[str, list]) -> list[DetDataSample]:
        """Predict boxes and masks of a batch.

        Args:
            data (dict[str, list]): V inputs and data_samples, each a list of
                B, from ``TestTimeAug`` and ``pseudo_collate``.
        """
        num_views = len(data['inputs'])
        chosen = self.mask_views or range(num_views)
        if not {*chosen} <= {*range(num_views)}:
            raise LongTailError(
                f'MaskTTAModel: mask_views is {chosen}, but tta_pipeline '
                f'makes the views 0 to {num_views - 1}'
            )
        features, metas, samples = [], [], []
        for view in range(num_views):
            batch = {key: value[view] for key, value in data.items()}
            batch = self.module.data_preprocessor(batch, False)
            features.append(self.module.extract_feat(batch['inputs']))
            samples.append(batch['data_samples'])
            metas.append([sample.metainfo for sample in samples[-1]])
            self._predict_boxes(features[-1], samples[-1])
        merged = self.merge_preds(list(zip(*samples, strict=True)))

        roi_head = self.module.roi_head
        boxes = [sample.pred_instances.bboxes for sample in merged]
        labels = torch.cat([s.pred_instances.labels for s in merged])  # (N,)
        if roi_head.mask_head.class_agnostic:
            labels = torch.zeros_like(labels)
        probs = torch.stack(
            [
                self._mask_probs(features[v], metas[v], boxes, labels)
                for v in chosen
            ]
        ).mean(0)  # (N, 1, h, w)
        counts = [len(of_image) for of_image in boxes]
        for sample, mask_probs in zip(
            merged, probs.split(counts), strict=True
        ):
            found = sample.pred_instances
            pasted = InstanceData(
                bboxes=found.bboxes.clone(),
                labels=torch.zeros_like(found.labels),
            )
            # An array, because mmdet copies it and warns if it is a tensor.
            roi_head.mask_head.predict_by_feat(
                [mask_probs.cpu().numpy()],
                [pasted],
                [dict(sample.metainfo, scale_factor=(1.0, 1.0))],
                roi_head.test_cfg,
                rescale=True,
                activate_map=True,
            )
            found.masks = pasted.masks
        return merged

    def _predict_boxes(
        self, x: tuple[Tensor, ...], samples: list[DetDataSample]
    ) -> None:
        """Set the boxes of a view on its samples, in the original image."""
        roi_head = self.module.roi_head
        metas = [sample.metainfo for sample in samples]
        proposals = self.module.rpn_head.predict(x, samples, rescale=False)
        # Rescaled after NMS, as in a detector with masks.
        found = roi_head.predict_bbox(
            x, metas, proposals, roi_head.test_cfg, rescale=False
        )
        for sample, instances in zip(samples, found, strict=True):
            instances.bboxes /= _scale(instances.bboxes, sample.metainfo)
            sample.pred_instances = instances

    def _mask_probs(
        self,
        x: tuple[Tensor, ...],
        metas: list[dict],
        boxes: list[Tensor],
        labels: Tensor,
    ) -> Tensor:
        """Predict masks (N, 1, h, w) of boxes in one view, not flipped.

        The boxes of each image are (n_b, 4), in the original image; labels
        (N,) are the channels of their masks.
        """
        in_view = []
        for of_image, meta in zip(boxes, metas, strict=True):
            scaled = of_image * _scale(of_image, meta)
            if meta.get('flip'):
                scaled = bbox_flip(
                    scaled, meta['img_shape'], meta['flip_direction']
                )
            in_view.append(scaled)
        logits = self.module.roi_head._mask_forward(x, bbox2roi(in_view))
        rows = torch.arange(len(labels), device=labels.device)
        probs = logits['mask_preds'][rows, labels, None].sigmoid()
        masks = list(probs.split([len(of_image) for of_image in boxes]))
        for i, meta in enumerate(metas):
            if meta.get('flip'):
                masks[i] = masks[i].flip(FLIPPED_AXES[meta['flip_direction']])
        return torch.cat(masks)


def _scale(boxes: Tensor, meta: dict) -> Tensor:
    """Return the factors (1, 4) from the original image to the view."""
    return boxes.new_tensor(meta['scale_factor']).repeat(1, 2)

"""Mask head for data in which some objects have a box only."""

import copy
from typing import Any

import torch
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.models.task_modules.samplers import SamplingResult
from mmdet.registry import MODELS
from mmengine.structures import InstanceData
from torch import Tensor


@MODELS.register_module()
class OptionalMaskFCNMaskHead(FCNMaskHead):
    """mmdet's ``FCNMaskHead``, trained on the objects that have a mask.

    The mask loss is the mean over the positive RoIs whose object has a mask
    of at least one pixel. ``LoadOptionalMasks`` gives objects without a mask
    an empty one. Resizing can empty a mask too.
    """

    def loss_and_target(
        self,
        mask_preds: Tensor,
        sampling_results: list[SamplingResult],
        batch_gt_instances: list[InstanceData],
        rcnn_train_cfg: Any,
    ) -> dict:
        kept, positives = [], []
        for sampling, gt in zip(
            sampling_results, batch_gt_instances, strict=True
        ):
            has_mask = torch.as_tensor(gt.masks.areas > 0)
            rows = has_mask.to(mask_preds.device)[
                sampling.pos_assigned_gt_inds
            ]  # (positives of the image,)
            # The fields that the mask loss reads.
            of_image = copy.copy(sampling)
            of_image.pos_priors = sampling.pos_priors[rows]
            of_image.pos_gt_labels = sampling.pos_gt_labels[rows]
            of_image.pos_assigned_gt_inds = sampling.pos_assigned_gt_inds[rows]
            kept.append(rows)
            positives.append(of_image)
        return super().loss_and_target(
            mask_preds[torch.cat(kept)],
            positives,
            batch_gt_instances,
            rcnn_train_cfg,
        )

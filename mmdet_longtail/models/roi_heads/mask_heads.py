"""A mask head for data in which some objects have a box only."""

from __future__ import annotations

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
    """mmdet's ``FCNMaskHead``, trained with the objects that have a mask.

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
        kept = [
            torch.as_tensor(gt.masks.areas > 0, device=mask_preds.device)[
                sampling.pos_assigned_gt_inds
            ]
            for sampling, gt in zip(
                sampling_results, batch_gt_instances, strict=True
            )
        ]  # per image: (positives of the image,) bool
        return super().loss_and_target(
            mask_preds[torch.cat(kept)],
            [
                _positives(sampling, rows)
                for sampling, rows in zip(sampling_results, kept, strict=True)
            ],
            batch_gt_instances,
            rcnn_train_cfg,
        )


def _positives(sampling: SamplingResult, rows: Tensor) -> SamplingResult:
    """Select positive RoIs, in the fields that the mask loss reads."""
    kept = copy.copy(sampling)
    kept.pos_priors = sampling.pos_priors[rows]
    kept.pos_gt_labels = sampling.pos_gt_labels[rows]
    kept.pos_assigned_gt_inds = sampling.pos_assigned_gt_inds[rows]
    return kept

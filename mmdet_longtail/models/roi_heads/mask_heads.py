"""Training masks on data in which some objects have a box only.

mmdet's ``LoadAnnotations`` stops at an object without ``segmentation``, and
ignores one whose polygons are empty, its box included. Here it keeps its box,
with a mask of no pixel, which stays empty through resizing, flipping and
cropping; the mask head then learns nothing from it.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from mmdet.datasets.transforms import LoadAnnotations
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.models.task_modules.samplers import SamplingResult
from mmdet.registry import MODELS, TRANSFORMS
from mmengine.structures import InstanceData
from torch import Tensor

# A polygon that is one point, and no pixel.
NO_MASK = [[0.0] * 6]


@TRANSFORMS.register_module()
class LoadOptionalMasks(LoadAnnotations):
    """mmdet's ``LoadAnnotations`` for objects with and without a mask.

    What has no ``segmentation``, or an empty one, is loaded as an object with
    an empty mask. Use it with ``OptionalMaskFCNMaskHead``. Transforms that
    compute boxes from masks (``CopyPaste``, ``recompute_bbox=True``) would
    lose its box.
    """

    def __init__(self, *args: Any, with_mask: bool = True, **kwargs: Any):
        super().__init__(*args, with_mask=with_mask, **kwargs)

    def transform(self, results: dict) -> dict:
        for instance in results.get('instances', []):
            instance['mask'] = instance.get('mask') or NO_MASK
        return super().transform(results)


@MODELS.register_module()
class OptionalMaskFCNMaskHead(FCNMaskHead):
    """mmdet's ``FCNMaskHead``, learning from objects that have a mask.

    A positive RoI whose object has a mask of no pixel takes no part in the
    mask loss, which stays the mean over the others. An object whose mask has
    vanished by resizing is such an object, too.
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
        ]  # one (positives of the image,) bool an image
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
    """Keep some positive RoIs, of what the mask loss reads."""
    kept = copy.copy(sampling)
    kept.pos_priors = sampling.pos_priors[rows]
    kept.pos_gt_labels = sampling.pos_gt_labels[rows]
    kept.pos_assigned_gt_inds = sampling.pos_assigned_gt_inds[rows]
    return kept

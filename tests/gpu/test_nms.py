"""The heads' NMS against mmdet's, both on the GPU."""

from __future__ import annotations

import pytest
import torch
from mmdet.models.layers import multiclass_nms

from mmdet_longtail.models.layers.multiclass_nms import SPLIT_THR
from mmdet_longtail.models.roi_heads.bbox_heads import multiclass_nms_of_best

PLAIN = dict(type='nms', iou_threshold=0.5)


def inputs_of(num_rois, num_classes, is_shared, device):
    """Boxes around a few places, and scores without ties."""
    generator = torch.Generator().manual_seed(num_classes)
    shape = num_rois, 1 if is_shared else num_classes, 2
    place = torch.randint(0, 4, shape, generator=generator)
    jitter = torch.randn(2, *shape, generator=generator)
    low = 20 + 150 * place + 8 * jitter[0]
    boxes = torch.cat([low, low + 100 + 8 * jitter[1]], 2).flatten(1)
    num_scores = num_rois * (num_classes + 1)
    rank = torch.randperm(num_scores, generator=generator)
    scores = rank.view(num_rois, -1).float() / num_scores
    return boxes.to(device), scores.to(device)


@pytest.mark.parametrize('max_per_img', [1, 100, 2000])
@pytest.mark.parametrize('is_shared', [True, False])
@pytest.mark.parametrize(
    ('num_rois', 'num_classes'), [(300, 20), (30, 400), (1, 5)]
)
def test_detections_are_mmdets(
    num_rois, num_classes, is_shared, max_per_img, device
):
    inputs = inputs_of(num_rois, num_classes, is_shared, device)
    if num_classes == 400:  # mmcv compares class by class here
        assert num_rois * num_classes > SPLIT_THR
    arguments = (*inputs, 0.05, PLAIN, max_per_img)
    found, expected = (
        function(*arguments)
        for function in (multiclass_nms_of_best, multiclass_nms)
    )
    assert len(expected[0]) > 0
    for ours, mmdets in zip(found, expected, strict=True):
        assert ours.device.type == device
        assert torch.equal(ours, mmdets)

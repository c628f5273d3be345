"""Background in regions to ignore is ignored."""

import naive
import numpy as np
import pytest
import torch
from mmdet.registry import TASK_UTILS
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData


@pytest.fixture(scope='module', autouse=True)
def mmdet_scope():
    init_default_scope('mmdet')


def naive_assignment(priors, boxes, regions, pos_iou, neg_iou, share):
    """0 background, -1 ignored, k + 1 object k."""
    result = []
    for prior in priors:
        iou = [naive.box_iou(prior, box) for box in boxes]
        best = int(np.argmax(iou))
        if iou[best] >= pos_iou:
            result.append(best + 1)
            continue
        kind = 0 if iou[best] < neg_iou else -1
        area = (prior[2] - prior[0]) * (prior[3] - prior[1])
        for region in regions:
            width = min(prior[2], region[2]) - max(prior[0], region[0])
            height = min(prior[3], region[3]) - max(prior[1], region[1])
            if max(width, 0) * max(height, 0) > share * area:
                kind = -1
        result.append(kind)
    return result


def test_background_in_regions_is_ignored_and_objects_are_not():
    assigner = TASK_UTILS.build(
        dict(
            type='BackgroundIgnoringAssigner',
            pos_iou_thr=0.5,
            neg_iou_thr=0.4,
            match_low_quality=False,
        )
    )
    rng = np.random.default_rng(0)

    def boxes(number):
        xy = rng.uniform(0, 40, (number, 2))
        return np.hstack([xy, xy + rng.uniform(8, 24, (number, 2))])

    objects, regions = boxes(4), boxes(3)
    priors = np.vstack([boxes(200), objects + 1])
    ground_truth = InstanceData(
        bboxes=torch.tensor(objects), labels=torch.arange(4)
    )
    result = assigner.assign(
        InstanceData(priors=torch.tensor(priors)),
        ground_truth,
        InstanceData(bboxes=torch.tensor(regions)),
    )
    expected = naive_assignment(priors, objects, regions, 0.5, 0.4, 0.5)
    assert result.gt_inds.tolist() == expected
    assert {-1, 0, 1} <= set(expected)
    on_region = InstanceData(bboxes=torch.tensor(objects))
    result = assigner.assign(
        InstanceData(priors=torch.tensor(objects)), ground_truth, on_region
    )
    assert result.gt_inds.tolist() == [1, 2, 3, 4]
    nothing = InstanceData(bboxes=torch.zeros(0, 4))
    for ignored in (None, nothing):
        result = assigner.assign(
            InstanceData(priors=torch.tensor(priors)), ground_truth, ignored
        )
        expected = naive_assignment(priors, objects, [], 0.5, 0.4, 0.5)
        assert result.gt_inds.tolist() == expected

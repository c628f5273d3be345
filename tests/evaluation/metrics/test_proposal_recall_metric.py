import copy

import pytest
from detection_sets import (
    as_results,
    coco_dataset,
    federated_dataset,
    perturbed,
    run,
    statistics_of,
    write_json,
)
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.evaluation.metrics import ProposalRecallMetric


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
@pytest.mark.parametrize('make', [federated_dataset, coco_dataset])
def test_proposal_recall_equals_pycocotools(tmp_path, make, iou_type):
    dataset = make(11, num_images=10, num_classes=30, with_masks=True)
    for annotation in dataset['annotations']:
        annotation.setdefault('iscrowd', 0)
    ann_file = write_json(tmp_path / 'val.json', dataset)
    detections = perturbed(dataset, 11, with_masks=True)
    statistics = statistics_of(dataset)
    ours = run(
        ProposalRecallMetric(
            ann_file=ann_file, metric=iou_type, proposals=(1, 5, 1000)
        ),
        dataset,
        detections,
        statistics,
    )
    truth = COCO(ann_file)
    found = truth.loadRes(copy.deepcopy(as_results(detections, iou_type)))
    evaluation = COCOeval(truth, found, iou_type)
    evaluation.params.useCats = 0
    evaluation.params.maxDets = [1, 5, 1000]
    evaluation.evaluate()
    evaluation.accumulate()
    recall = evaluation.eval['recall'][:, 0]  # (T, A, M)
    key = f'proposal_recall/{iou_type}_'
    for m, limit in enumerate((1, 5, 1000)):
        assert ours[f'{key}AR@{limit}'] == pytest.approx(
            recall[:, 0, m].mean(), abs=1e-9
        )
    for a, size in enumerate('sml', 1):
        expected = recall[:, a, 2].mean()
        assert ours[f'{key}AR{size}@1000'] == pytest.approx(expected, abs=1e-9)
    groups = [ours[f'{key}AR{letter}@1000'] for letter in 'rcf']
    assert min(groups) <= ours[f'{key}AR@1000'] <= max(groups)


def test_proposals_need_no_classes(tmp_path):
    dataset = federated_dataset(12, num_images=5, num_classes=12)
    ann_file = write_json(tmp_path / 'val.json', dataset)
    detections = perturbed(dataset, 12)
    results = []
    for first in (True, False):
        if not first:
            for detection in detections:
                ids = detection['category_ids']
                ids[:] = dataset['categories'][0]['id']
        metric = ProposalRecallMetric(ann_file=ann_file)
        results.append(
            run(metric, dataset, detections, statistics_of(dataset))
        )
    assert results[0] == results[1]
    assert results[0]['proposal_recall/bbox_AR@1000'] > 0.3


@pytest.mark.parametrize('proposals', [(), (0,)])
def test_bad_proposals(proposals):
    with pytest.raises(LongTailError) as error:
        ProposalRecallMetric(proposals=proposals)
    message = f'ProposalRecallMetric: proposals is {proposals}'
    assert str(error.value).startswith(message)

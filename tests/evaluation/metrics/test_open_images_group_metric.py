"""Average precision of Open Images, by groups of equally many classes."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from mmdet.evaluation import OpenImagesMetric
from mmdet.registry import METRICS
from open_images import (
    ABSENT,
    STATISTICS,
    C,
    detect,
    evaluate,
    make_challenge_set,
    statistics_of,
)

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.evaluation.metrics import (
    OpenImagesGroupMetric,
    equal_groups,
)
from mmdet_longtail.structures.class_statistics import ClassStatistics

SHARED = Path(__file__).parents[4] / 'shared' / 'data'


@pytest.fixture
def challenge(tmp_path):
    dataset = make_challenge_set(tmp_path)
    return dataset, detect(dataset)


def test_groups_are_equal_and_sorted():
    groups = equal_groups(STATISTICS, 3)
    assert [g.key for g in groups] == ['AP1', 'AP2', 'AP3']
    assert [np.flatnonzero(g.members).tolist() for g in groups] == [
        [1, 4, 5],
        [2, 6],
        [0, 3],
    ]


@pytest.mark.skipif(not SHARED.exists(), reason='no shared data')
def test_groups_of_the_challenge_have_100_classes():
    path = SHARED / 'openimages_challenge2019_train_counts.json'
    counts = np.array(json.loads(path.read_text())['instance_count'])
    groups = equal_groups(statistics_of(counts), 5)
    assert [g.members.sum() for g in groups] == [100] * 5
    assert np.sum([g.members for g in groups], axis=0).tolist() == [1] * 500
    for more, fewer in pairwise(groups):
        assert counts[more.members].min() >= counts[fewer.members].max()


@pytest.mark.parametrize('num_groups', [1, 3, C])
@pytest.mark.parametrize('iou_thrs', [0.5, [0.5, 0.75]])
def test_mean_over_classes_is_mmdets_map(challenge, num_groups, iou_thrs):
    dataset, samples = challenge
    ioa_thrs = iou_thrs
    metric = OpenImagesGroupMetric(
        num_groups, iou_thrs=iou_thrs, ioa_thrs=ioa_thrs
    )
    metric.set_class_statistics(STATISTICS)
    ours = evaluate(metric, dataset, samples)  # gives mmdet its key, too
    theirs = evaluate(
        OpenImagesMetric(iou_thrs=iou_thrs, ioa_thrs=ioa_thrs),
        dataset,
        samples,
    )
    for key, value in theirs.items():
        assert ours[key] == pytest.approx(value, abs=1e-6)
    ap, classes = (
        np.array(
            [
                ours[f'openimages/AP{g}{suffix}']
                for g in range(1, num_groups + 1)
            ]
        )
        for suffix in ('', '_classes')
    )
    weighted = (ap * classes)[classes > 0].sum() / classes.sum()
    assert weighted == pytest.approx(ours['openimages/mAP'], abs=1e-6)
    assert 0.1 < weighted < 0.95
    assert np.all(ap[classes == 0] == -1)


def test_groups_of_one_are_the_classes(challenge):
    """Each class alone, evaluated by mmdet on boxes of that class only."""
    dataset, samples = challenge
    metric = OpenImagesGroupMetric(C, get_supercategory=False)
    metric.set_class_statistics(STATISTICS)
    ours = evaluate(metric, dataset, samples)
    order = [4, 1, 5, 2, 6, 3, 0]  # by image_count, then by label
    for rank, label in enumerate(order, 1):
        alone = []
        for sample in samples:
            instances = [
                i for i in sample['instances'] if i['bbox_label'] == label
            ]
            keep = sample['pred_instances']['labels'] == label
            verified = {i['bbox_label'] for i in sample['instances']}
            verified |= set(sample['image_level_labels'].tolist())
            alone.append(
                dict(
                    sample,
                    instances=instances,
                    image_level_labels=np.array(sorted(verified)),
                    pred_instances={
                        k: v[keep] for k, v in sample['pred_instances'].items()
                    },
                )
            )
        theirs = evaluate(
            OpenImagesMetric(get_supercategory=False), dataset, alone
        )
        value = ours[f'openimages/AP{rank}']
        if label == ABSENT:
            assert value == -1
        else:
            assert value == pytest.approx(theirs['openimages/mAP'], abs=1e-6)


def test_statistics_of_the_dataset_and_from_a_file(challenge, tmp_path):
    dataset, samples = challenge
    counted = ClassStatistics.from_dataset(dataset)
    boxes = [i for s in samples for i in s['instances']]
    assert counted.num_images == len(samples)
    assert any(i['is_group_ofs'] for i in boxes)  # they are in the counts
    assert counted.instance_count.sum() == len(boxes)
    assert counted.instance_count[ABSENT] == 0
    counted.save(tmp_path / 'counts.json')
    metric = METRICS.build(
        dict(
            type='OpenImagesGroupMetric',
            num_groups=2,
            class_statistics=str(tmp_path / 'counts.json'),
        )
    )
    assert evaluate(metric, dataset, samples)['openimages/AP2_classes'] == 2


@pytest.mark.parametrize(
    ('arguments', 'statistics', 'message'),
    [
        ({'num_groups': 0}, STATISTICS, 'num_groups is 0'),
        ({'num_groups': 8}, STATISTICS, 'only 7 classes'),
        ({'num_groups': 50}, STATISTICS, 'use fewer'),
        ({'scale_ranges': [(0, 9)]}, STATISTICS, 'OpenImagesMetric'),
        ({}, None, 'ClassStatisticsHook'),
        ({}, statistics_of([3, 2, 1]), 'has 3 classes'),
        ({}, statistics_of(STATISTICS.image_count), "class 0 is '0'"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(
    challenge, arguments, statistics, message
):
    dataset, samples = challenge
    with pytest.raises(LongTailError, match=message) as error:
        metric = OpenImagesGroupMetric(**arguments)
        if statistics is not None:
            metric.set_class_statistics(statistics)
        evaluate(metric, dataset, samples)
    assert '\n' not in str(error.value)

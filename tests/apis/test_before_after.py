"""apis/before_after.py: both stages of a training on the same images."""

import json

import numpy as np
import pytest
from detection_sets import (
    as_results,
    coco_dataset,
    federated_dataset,
    perturbed,
    statistics_of,
    write_json,
)

from mmdet_longtail.apis.before_after import (
    compare_stages,
    count_unreached,
    find_evaluator,
)
from mmdet_longtail.evaluation.functional import (
    Detections,
    EvaluationSpec,
    GroundTruth,
    evaluate,
)
from mmdet_longtail.structures.class_statistics import ClassGroup


def stages(folder, before, after, make=coco_dataset):
    """Write a set and the results of two seeds (None: nothing is found)."""
    dataset = make(3, num_images=20, num_classes=12)
    path = write_json(folder / 'val.json', dataset)
    truth = GroundTruth.load(path)
    statistics = statistics_of(dataset)
    evaluations = []
    for name, seed in (('before', before), ('after', after)):
        results = []
        if seed is not None:
            results = as_results(perturbed(dataset, seed), 'bbox')
        (folder / f'{name}.bbox.json').write_text(json.dumps(results))
        found = Detections.from_results(results, truth, 'bbox', '')
        spec = EvaluationSpec(truth, found)
        groups = statistics.frequency_groups()
        evaluations.append(evaluate(spec, groups))
    return path, statistics, evaluations


def named(evaluations, pattern):
    before, after = (evaluation.means() for evaluation in evaluations)
    return {
        pattern.format(key): {'before': before[key], 'after': after[key]}
        for key in before
    }


@pytest.mark.parametrize('make', [coco_dataset, federated_dataset])
def test_intervals_of_groups(tmp_path, make):
    path, statistics, evaluations = stages(tmp_path, 1, 2, make)
    metrics = named(evaluations, 'frequency_group/bbox_{}')
    evaluator = dict(type='FrequencyGroupMetric', ann_file=path)
    found = compare_stages(evaluator, tmp_path, statistics, metrics)
    keys = {'AP', 'APr', 'APc', 'APf'}
    assert {*found['intervals']} == {f'frequency_group/bbox_{k}' for k in keys}
    for name, ends in found['intervals'].items():
        value = metrics[name]
        for stage in ('before', 'after'):
            assert 0 <= ends[stage][0] <= value[stage] <= ends[stage][1] <= 1
        low, high = ends['difference']
        assert low <= value['after'] - value['before'] <= high
    assert found['warnings'] == {}


def test_interval_of_a_metric_of_mmdet(tmp_path):
    path, statistics, evaluations = stages(tmp_path, 1, 1)
    metrics = named(evaluations, 'coco/bbox_m{}')
    for pair in metrics.values():
        for stage, value in pair.items():
            pair[stage] = round(value, 3)
    evaluator = dict(type='mmdet.CocoMetric', ann_file=path, metric=['bbox'])
    found = compare_stages(evaluator, tmp_path, statistics, metrics)
    assert found['intervals']['coco/bbox_mAP']['difference'] == (0, 0)
    # Of other images or rules: no interval is better than a wrong one.
    metrics['coco/bbox_mAP']['after'] += 0.01
    found = compare_stages(evaluator, tmp_path, statistics, metrics)
    assert 'coco/bbox_mAP' not in found['intervals']


def test_a_base_that_detects_nothing(tmp_path):
    path, statistics, evaluations = stages(tmp_path, None, 1)
    metrics = named(evaluations, 'frequency_group/bbox_{}')
    evaluator = dict(type='FrequencyGroupMetric', ann_file=path)
    found = compare_stages(evaluator, tmp_path, statistics, metrics)
    assert 'nothing was detected' in found['warnings'].pop('before')
    assert not found['warnings']
    rare = found['rare_objects']
    assert rare['unreached'] == rare['all'] > 0


def test_objects_without_a_box():
    boxes = [[0, 0, 10, 10], [20, 0, 10, 10], [40, 0, 10, 10], [60, 0, 9, 9]]
    categories = [0, 0, 1, 0]
    dataset = {
        'images': [{'id': 1, 'width': 99, 'height': 99}],
        'annotations': [
            dict(id=k, image_id=1, category_id=c, bbox=box, area=100)
            for k, (c, box) in enumerate(zip(categories, boxes), 1)
        ],
        'categories': [{'id': 0, 'name': 'rare'}, {'id': 1, 'name': 'other'}],
    }
    dataset['annotations'][3]['iscrowd'] = 1
    truth = GroundTruth(dataset, 'val.json')
    rare = ClassGroup('APr', 'rare', np.array([True, False]))
    # A box of another class reaches the object.
    results = [dict(image_id=1, category_id=1, bbox=boxes[0], score=0.001)]
    found = Detections.from_results(results, truth, 'bbox', '')
    evaluation = evaluate(EvaluationSpec(truth, found), [rare])
    assert count_unreached(evaluation) == {'all': 2, 'unreached': 1}


def test_evaluators_that_write_results():
    ours = dict(type='FrequencyGroupMetric', ann_file='a.json')
    cocos = dict(type='CocoMetric', ann_file='a.json')
    assert find_evaluator(ours) is ours
    assert find_evaluator([dict(type='VOCMetric'), cocos]) is cocos
    assert find_evaluator(dict(type='VOCMetric')) is None
    assert find_evaluator([dict(type='CocoMetric')]) is None

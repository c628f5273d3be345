"""Types of configs: names with and without a scope, paths, classes."""

import pytest
from mmdet.datasets.transforms import LoadAnnotations
from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS, TRANSFORMS
from mmengine.config import ConfigDict

from mmdet_longtail.datasets.transforms import load_boxes_before_resize
from mmdet_longtail.evaluation.metrics import FrequencyGroupMetric
from mmdet_longtail.utils.registry import is_type, resolve_type, type_name

SPELLINGS = [
    'CocoMetric',
    'mmdet.CocoMetric',
    'mmdet.evaluation.metrics.coco_metric.CocoMetric',
    CocoMetric,
]


@pytest.mark.parametrize('kind', SPELLINGS)
def test_spellings_of_one_type(kind):
    config = ConfigDict(type=kind, ann_file='val.json')
    assert resolve_type(METRICS, config) is CocoMetric
    assert type_name(config) == 'CocoMetric'
    assert is_type(METRICS, config, CocoMetric)
    assert not is_type(METRICS, config, FrequencyGroupMetric)


@pytest.mark.parametrize('config', [None, [], 'CocoMetric', {}, {'type': 'A'}])
def test_no_registered_type(config):
    assert not is_type(METRICS, config, CocoMetric)


@pytest.mark.parametrize(
    'kind',
    [
        'LoadAnnotations',
        'mmdet.LoadAnnotations',
        LoadAnnotations,
        'LoadOptionalMasks',
    ],
)
def test_boxes_are_loaded_before_the_resize(kind):
    load, resize = dict(type=kind, with_bbox=True), dict(type='mmdet.Resize')
    first, last = dict(type='LoadImageFromFile'), dict(type='PackDetInputs')
    pipeline = [first, resize, load, last]
    expected = [first, load, resize, last]
    assert load_boxes_before_resize(pipeline) == expected
    assert TRANSFORMS.get('LoadOptionalMasks') is not None

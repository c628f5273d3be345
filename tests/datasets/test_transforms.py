"""Objects without a mask are loaded with their box."""

import pytest
from masks import (
    first_batch,
    make_mask_data,
    read,
    without_masks,
    write,
)
from mmengine.registry import init_default_scope


@pytest.fixture(scope='module', autouse=True)
def mmdet_scope():
    init_default_scope('mmdet')


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return make_mask_data(tmp_path_factory.mktemp('data') / 'data')


def test_an_object_without_mask_keeps_its_box(data):
    content = read(data / 'train.json')
    content = without_masks(content, [0, 2])
    content['annotations'][1]['segmentation'] = []
    write(data / 'some.json', content)
    sample = first_batch(data, 'some.json')['data_samples'][0]
    assert len(sample.ignored_instances) == 0
    areas = sample.gt_instances.masks.areas
    assert areas.tolist()[:3] == [0, 0, 0]
    assert areas[3] == pytest.approx(20 * 20 * 1.5**2, rel=0.1)

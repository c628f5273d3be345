"""Objects without a mask are loaded with their box."""

import pytest
from masks import (
    first_batch,
    make_mask_data,
    read,
    without_masks,
    write,
)
from mmdet.registry import TRANSFORMS
from mmengine.registry import init_default_scope

from mmdet_longtail.errors import LongTailError


@pytest.fixture(scope='module', autouse=True)
def mmdet_scope():
    init_default_scope('mmdet')


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return make_mask_data(tmp_path_factory.mktemp('data') / 'data')


def test_an_object_without_mask_keeps_its_box(data):
    content = read(data / 'train.json')
    content = without_masks(content, [0, 2])
    content['annotations'][1]['segmentation'] = [[]]
    write(data / 'some.json', content)
    sample = first_batch(data, 'some.json')['data_samples'][0]
    assert len(sample.ignored_instances) == 0
    areas = sample.gt_instances.masks.areas
    assert areas.tolist()[:3] == [0, 0, 0]
    assert areas[3] == pytest.approx(20 * 20 * 1.5**2, rel=0.1)


@pytest.mark.parametrize(
    ('mask', 'message'),
    [
        ([[0, 0, float('nan'), 0, 9, 9]], 'NaN'),
        ([0, 0, 9, 0, 9, 9], 'list of numbers'),
        ({'size': [10, 20], 'counts': [200]}, r'size \[10, 20\]'),
    ],
)
def test_a_mask_that_cannot_be_drawn_is_named(mask, message):
    """Also of another dataset than ours."""
    transform = TRANSFORMS.build(dict(type='LoadOptionalMasks'))
    instance = dict(bbox=[0, 0, 9, 9], bbox_label=0, ignore_flag=0, mask=mask)
    results = dict(
        img_path='a.jpg',
        ori_shape=(20, 20),
        img_shape=(20, 20),
        instances=[instance],
    )
    with pytest.raises(LongTailError, match=rf'a\.jpg: .*{message}'):
        transform(results)

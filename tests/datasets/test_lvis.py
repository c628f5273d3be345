"""Annotation files as datasets, and regions to ignore of a second file."""

import copy
import gzip
import json
import pickle

import naive
import numpy as np
import pytest
from masks import (
    make_mask_data,
    read,
    write,
)
from mmdet.registry import DATASETS
from mmengine.registry import init_default_scope
from tiny import IMAGE_SIZE

from mmdet_longtail.datasets.samplers import count_image_classes
from mmdet_longtail.errors import LongTailError


@pytest.fixture(scope='module', autouse=True)
def mmdet_scope():
    init_default_scope('mmdet')


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return make_mask_data(tmp_path_factory.mktemp('data') / 'data')


def regions_dataset(data, **options):
    return DATASETS.build(
        dict(
            type='IgnoreRegionsAnnotationFileDataset',
            data_root=str(data),
            ann_file='train.json',
            data_prefix=dict(img='images/'),
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
                dict(type='RandomFlip', prob=1.0),
                dict(type='PackDetInputs'),
            ],
        )
        | options
    )


@pytest.fixture(scope='module')
def second_file(data):
    """Boxes of the training images: some annotated there, some not."""
    content = read(data / 'train.json')
    rng = np.random.default_rng(0)
    content['annotations'] = []
    for number in range(60):
        xy, size = rng.uniform(0, 40, 2), rng.uniform(2, 24, 2)
        content['annotations'].append(
            dict(
                id=number + 1,
                image_id=1000 + number % 3,
                category_id=7,
                bbox=[*xy.tolist(), *size.tolist()],
            )
        )
    # Other ids and another folder, the same file names.
    content['images'] = [
        image | dict(id=999 + image['id'], file_name='x/' + image['file_name'])
        for image in content['images']
    ]
    content['categories'] = [dict(id=7, name='thing')]
    write(data / 'second.json', content)
    return content


@pytest.mark.parametrize('ignore_iou', [0.2, 0.5])
def test_what_is_not_annotated_is_ignored(data, second_file, ignore_iou):
    plain = regions_dataset(data)
    dataset = regions_dataset(
        data, ignore_file='second.json', ignore_iou=ignore_iou
    )
    total = 0
    for index in range(len(plain)):
        annotated = plain.get_data_info(index)['instances']
        instances = dataset.get_data_info(index)['instances']
        assert instances[: len(annotated)] == annotated
        expected = []
        for annotation in second_file['annotations']:
            if annotation['image_id'] != 1000 + index:
                continue
            x, y, w, h = annotation['bbox']
            box = [x, y, x + w, y + h]
            if all(
                naive.box_iou(box, a['bbox']) < ignore_iou for a in annotated
            ):
                expected.append(box)
        found = instances[len(annotated) :]
        assert [i['bbox'] for i in found] == expected
        assert all(i['ignore_flag'] == 1 for i in found)
        total += len(found)
    assert 0 < total < 60  # both sides of the rule were seen
    old, new = count_image_classes(plain), count_image_classes(dataset)
    for before, after in zip(old, new, strict=True):
        np.testing.assert_array_equal(before, after)


def test_regions_come_through_the_pipeline(data, second_file):
    dataset = regions_dataset(data, ignore_file='second.json')
    sample = dataset[0]['data_samples']
    info = dataset.get_data_info(0)['instances']
    regions = [i['bbox'] for i in info if i['ignore_flag']]
    assert len(sample.gt_instances) == len(info) - len(regions)
    found = sample.ignored_instances.bboxes.tensor.numpy()
    expected = np.array(regions)
    expected[:, [0, 2]] = IMAGE_SIZE - expected[:, [2, 0]]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize('version', ['V05', 'V1'])
def test_lvis_datasets_have_image_level_labels_too(data, tmp_path, version):
    """COCO's file calls images and annotations differently."""
    lvis = DATASETS.get(f'LVIS{version}Dataset')
    content = read(data / 'train.json')
    content['categories'] = [
        dict(id=k + 1, name=name)
        for k, name in enumerate(lvis.METAINFO['classes'])
    ]
    coco = copy.deepcopy(content)
    for image in content['images']:
        name = f'{image["id"]:012}.jpg'
        image |= dict(neg_category_ids=[9], not_exhaustive_category_ids=[])
        image['file_name'] = f'COCO_train2014_{name}'
        if version == 'V1':
            del image['file_name']
            image['coco_url'] = f'http://images.cocodataset.org/train/{name}'
    for image in coco['images']:
        image['file_name'] = f'{image["id"]:012}.jpg'
        image['id'] += 5
    for annotation in coco['annotations']:
        annotation['image_id'] += 5
        annotation['bbox'][:2] = [40, 40]
    write(tmp_path / 'lvis.json', content)
    write(tmp_path / 'coco.json', coco)
    dataset = DATASETS.build(
        dict(
            type=f'IgnoreRegionsLVIS{version}Dataset',
            data_root=str(tmp_path),
            ann_file='lvis.json',
            data_prefix=dict(img=''),
            ignore_file='coco.json',
            pipeline=[],
        )
    )
    info = dataset.get_data_info(0)
    assert info['present_labels'] == [0, 1, 2, 3]
    assert info['absent_labels'] == [8]
    assert sum(i['ignore_flag'] for i in info['instances']) == 4


def test_wrong_ignore_files_are_named(data, second_file, tmp_path):
    other = copy.deepcopy(second_file)
    for image in other['images']:
        image['file_name'] += '.png'
    write(data / 'other.json', other)
    with pytest.raises(LongTailError, match='none of the images'):
        regions_dataset(data, ignore_file='other.json')
    for image in other['images']:
        image['file_name'] = f'{image["id"]}/one.png'
    write(data / 'alike.json', other)
    with pytest.raises(LongTailError, match='4 images are named'):
        regions_dataset(data, ignore_file='alike.json')
    with pytest.raises(LongTailError, match='no such file'):
        regions_dataset(data, ignore_file='missing.json')
    with pytest.raises(LongTailError, match='ignore_iou is 0'):
        regions_dataset(data, ignore_iou=0)


# ------------------------------------------------ files of any quality


def file_dataset(folder, name='train.json', **options):
    settings = dict(
        type='AnnotationFileDataset',
        data_root=str(folder),
        ann_file=name,
        data_prefix=dict(img='images/'),
        pipeline=[],
    )
    return DATASETS.build(settings | options)


def test_a_byte_order_mark_is_read(data, tmp_path):
    text = (data / 'train.json').read_bytes()
    (tmp_path / 'train.json').write_bytes(b'\xef\xbb\xbf' + text)
    found, expected = file_dataset(tmp_path), file_dataset(data)
    assert found.metainfo == expected.metainfo
    assert len(found) == len(expected)
    for i in range(len(found)):
        instances = [
            d.get_data_info(i)['instances'] for d in (found, expected)
        ]
        assert instances[0] == instances[1]
    pickle.dumps(found)  # as for a worker


@pytest.mark.parametrize(
    ('name', 'convert', 'message'),
    [
        ('train.pkl', lambda t: pickle.dumps(json.loads(t)), 'pickle'),
        ('train.json', lambda t: t.encode('utf-16'), 'UTF-16'),
        ('train.json', lambda t: gzip.compress(t.encode()), 'gzip'),
        ('train.json', lambda t: t.encode() + b'\0', 'NUL'),
    ],
)
def test_other_files_are_refused(data, tmp_path, name, convert, message):
    text = (data / 'train.json').read_text()
    (tmp_path / name).write_bytes(convert(text))
    for classes in ({}, {'metainfo': {'classes': ('disc',)}}):
        with pytest.raises(LongTailError, match=message) as caught:
            file_dataset(tmp_path, name, **classes)
        assert name in str(caught.value) and '\n' not in str(caught.value)


MASKS = [dict(type='LoadAnnotations', with_bbox=True, with_mask=True)]
OPTIONAL_MASKS = [dict(type='LoadOptionalMasks', with_bbox=True)]
NAN_MASK = dict(segmentation=[[0, 0, float('nan'), 0, 9, 9]])


@pytest.mark.parametrize(
    ('section', 'change', 'pipeline', 'message'),
    [
        ('annotations', dict(id=...), [], "has no 'id'"),
        ('annotations', dict(id=1), [], 'more than once'),
        ('annotations', dict(area=...), [], "has no 'area'"),
        ('images', dict(width=...), [], "has no 'width'"),
        ('images', dict(file_name=...), [], "has no 'file_name'"),
        ('annotations', dict(iscrowd=None), [], 'iscrowd None'),
        ('annotations', dict(segmentation=...), MASKS, "no 'segmentation'"),
        ('annotations', dict(segmentation=[]), MASKS, r'is \[\]'),
        ('annotations', NAN_MASK, MASKS, 'NaN'),
        ('annotations', NAN_MASK, OPTIONAL_MASKS, 'NaN'),
    ],
)
def test_what_mmdet_reads_is_checked(
    data, tmp_path, section, change, pipeline, message
):
    content = read(data / 'train.json')
    for entry in content[section]:
        entry.update(change)
        for key in [k for k, value in change.items() if value is ...]:
            del entry[key]
    write(tmp_path / 'train.json', content)
    with pytest.raises(LongTailError, match=message) as caught:
        file_dataset(tmp_path, pipeline=pipeline)
    assert 'train.json: ' in str(caught.value)


def test_a_filter_that_leaves_no_image_is_named(data, tmp_path):
    options = dict(filter_cfg=dict(filter_empty_gt=True, min_size=IMAGE_SIZE))
    assert len(file_dataset(data, **options)) == 4
    options['filter_cfg']['min_size'] += 1
    with pytest.raises(LongTailError, match='none of its 4 images'):
        file_dataset(data, **options)
    assert len(file_dataset(data, **options, test_mode=True)) == 4
    content = read(data / 'train.json') | {'annotations': []}
    write(tmp_path / 'train.json', content)
    assert len(file_dataset(tmp_path)) == 4  # of background
    with pytest.raises(LongTailError, match='none of its 4 images'):
        file_dataset(tmp_path, filter_cfg=dict(filter_empty_gt=True))


def test_a_test_set_needs_no_annotations(data, tmp_path):
    content = read(data / 'train.json')
    del content['annotations']
    write(tmp_path / 'train.json', content)
    assert len(file_dataset(tmp_path, test_mode=True)) == 4

"""Class statistics against plain loops, mmdet's datasets and known truths."""

import csv
import json
import math
from collections import Counter
from pathlib import Path

import mmengine
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmdet.datasets import (
    CocoDataset,
    ConcatDataset,
    LVISV05Dataset,
    Objects365V1Dataset,
    OpenImagesDataset,
    V3DetDataset,
    VOCDataset,
)
from mmdet.registry import DATASETS
from mmengine.dataset import ConcatDataset as MMEngineConcatDataset
from mmengine.dataset import RepeatDataset

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.structures.annotations import (
    DROP_REASONS,
    FILTERED,
    IGNORED,
    NO_AREA,
    NORMALIZED,
    OTHER,
    OUTSIDE,
    TINY,
    parse_annotations,
    read_annotations,
)
from mmdet_longtail.structures.class_statistics import ClassStatistics

SHARED_DATA = Path(__file__).parents[3] / 'shared' / 'data'
needs_shared_data = pytest.mark.skipif(
    not SHARED_DATA.is_dir(), reason='the data beside the checkout is absent'
)


def coco(num_images, names, boxes):
    """COCO content; ids are not positions, boxes are (image, label, extra)."""
    return {
        'images': [
            {
                'id': 100 - i,
                'file_name': f'{i}.jpg',
                'coco_url': f'http://images.cocodataset.org/train2017/{i}.jpg',
                'width': 64,
                'height': 64,
                'neg_category_ids': [],
                'not_exhaustive_category_ids': [],
            }
            for i in range(num_images)
        ],
        'categories': [
            {'id': 50 + 7 * label, 'name': name}
            for label, name in enumerate(names)
        ],
        'annotations': [
            {
                'id': i,
                'image_id': 100 - image,
                'category_id': 50 + 7 * label,
                'bbox': [1, 2, 10, 20],
                'area': 200,
                **extra,
            }
            for i, (image, label, extra) in enumerate(boxes, 1)
        ],
    }


def simple_coco():
    """Five images, three with boxes that train; 'dog' only in a crowd."""
    boxes = [
        (0, 0, {}),
        (0, 0, {}),
        (0, 2, {}),
        (1, 1, {'iscrowd': 1}),
        (2, 0, {'iscrowd': 0}),
        (2, 2, {'ignore': 1}),
        (4, 1, {'iscrowd': 1}),
        (4, 2, {'bbox': [60, 60, 9, 5]}),
        (3, 0, {'bbox': [60, 60, 0, 5]}),
    ]
    return coco(5, ['cat', 'dog', 'bird'], boxes)


SIMPLE = {
    'class_names': ('cat', 'dog', 'bird'),
    'image_count': np.array([2, 0, 2]),
    'instance_count': np.array([3, 0, 2]),
    'num_images': 5,
    'num_annotated_images': 3,
}


def write(path, content):
    path.write_text(json.dumps(content))
    return str(path)


def naive_trains(box, image):
    """Whether mmdet yields a box that is no crowd, as its code reads."""
    x, y, w, h = box['bbox']
    inter_w = max(0, min(x + w, image['width']) - max(x, 0))
    inter_h = max(0, min(y + h, image['height']) - max(y, 0))
    return not (
        box.get('iscrowd')
        or box.get('ignore')
        or inter_w * inter_h == 0
        or box['area'] <= 0
        or w < 1
        or h < 1
    )


def naive_statistics(content):
    """Count with plain loops."""
    instance_count = Counter()
    images_of_class = {}
    annotated = set()
    image_of = {image['id']: image for image in content['images']}
    for box in content['annotations']:
        if not naive_trains(box, image_of[box['image_id']]):
            continue
        category = box['category_id']
        instance_count[category] += 1
        images_of_class.setdefault(category, set()).add(box['image_id'])
        annotated.add(box['image_id'])
    ids = [category['id'] for category in content['categories']]
    return ClassStatistics(
        class_names=tuple(c['name'] for c in content['categories']),
        image_count=[len(images_of_class.get(i, ())) for i in ids],
        instance_count=[instance_count[i] for i in ids],
        num_images=len(content['images']),
        num_annotated_images=len(annotated),
    )


def lvis_statistics(version):
    path = SHARED_DATA / 'lvis' / f'lvis_{version}_train_counts.json'
    counts = json.loads(path.read_text())
    return ClassStatistics(
        counts['name'],
        counts['image_count'],
        counts['instance_count'],
        counts['num_images'],
        counts['num_annotated_images'],
    )


def one_box_per_image(image_count, num_images):
    """Statistics with given image counts."""
    return ClassStatistics(
        [f'class {i}' for i in range(len(image_count))],
        image_count,
        image_count,
        num_images,
        min(sum(image_count), num_images),
    )


flags = st.fixed_dictionaries(
    {},
    optional={
        'iscrowd': st.integers(0, 1),
        'ignore': st.booleans(),
        'area': st.sampled_from([0, -1, 0.5]),
        'bbox': st.sampled_from(
            [
                [0, 0, 5, 5],
                [0, 0, 0, 5],
                [3, 3, 4, -1],
                [0.5, 0, 0.1, 0.1],
                [0, 0, 1, 1],
                [3, 3, 0.9, 5],
                [64, 3, 5, 5],
                [63.5, 3, 5, 5],
                [-5, 3, 5, 5],
                [-5, -5, 80, 80],
            ]
        ),
    },
)
contents = st.integers(1, 6).flatmap(
    lambda num_images: st.integers(1, 5).flatmap(
        lambda num_classes: st.builds(
            lambda boxes: coco(num_images, 'abcde'[:num_classes], boxes),
            st.lists(
                st.tuples(
                    st.integers(0, num_images - 1),
                    st.integers(0, num_classes - 1),
                    flags,
                ),
                max_size=30,
            ),
        )
    )
)
image_counts = st.lists(st.integers(0, 30), min_size=1, max_size=12)


# counting


@given(contents)
def test_counts_equal_plain_loops(content):
    annotations = parse_annotations(content, 'train.json')
    expected = naive_statistics(content)
    if not expected.num_annotated_images:
        with pytest.raises(LongTailError, match='box'):
            ClassStatistics.from_annotations(annotations)
        return
    assert ClassStatistics.from_annotations(annotations) == expected
    total = expected.instance_count + annotations.dropped.sum(1)
    categories = [box['category_id'] for box in content['annotations']]
    ids = [category['id'] for category in content['categories']]
    assert total.tolist() == [categories.count(i) for i in ids]


DROPPED = {
    'crowd': ({'iscrowd': 1}, IGNORED),
    'crowd of no area': ({'iscrowd': 1, 'area': 0}, IGNORED),
    'text': ({'iscrowd': '0'}, IGNORED),
    'ignored': ({'ignore': True}, IGNORED),
    'no area': ({'area': 0}, NO_AREA),
    'negative width': ({'bbox': [9, 9, -3, 9]}, NO_AREA),
    'thin': ({'bbox': [9, 9, 0.9, 9]}, TINY),
    'right of the image': ({'bbox': [64, 9, 9, 9]}, OUTSIDE),
    'above the image': ({'bbox': [9, -9, 9, 9]}, OUTSIDE),
    'normalized': ({'bbox': [0.2, 0.1, 0.8, 0.7]}, NORMALIZED),
    'of another kind': ({}, None),
    'one pixel': ({'bbox': [0, 0, 1, 1]}, None),
    'beyond the border': ({'bbox': [60, 60, 20, 20]}, None),
}


@pytest.mark.parametrize('case', DROPPED)
def test_reasons_of_dropped_boxes(case):
    extra, reason = DROPPED[case]
    content = coco(1, 'ab', [(0, 0, {}), (0, 1, extra)])
    dropped = parse_annotations(content, '').dropped
    expected = np.zeros((2, len(DROP_REASONS)), np.int64)
    if reason is not None:
        expected[1, reason] = 1
    assert dropped.tolist() == expected.tolist()


@pytest.mark.parametrize(
    ('section', 'key'),
    [('annotations', 'area'), ('images', 'width'), ('images', 'height')],
)
def test_a_missing_field_drops_no_box(section, key):
    content = coco(1, 'a', [(0, 0, {})])
    del content[section][0][key]
    assert not parse_annotations(content, '').dropped.any()


def test_frame():
    statistics = one_box_per_image([3, 20, 500], 1000)
    frame = statistics.to_frame()
    assert frame['name'].tolist() == [*statistics.class_names]
    assert frame['image_count'].tolist() == [3, 20, 500]
    assert frame['image_frequency'].tolist() == [0.003, 0.02, 0.5]
    assert frame['group'].tolist() == ['rare', 'common', 'frequent']


def test_annotation_file(tmp_path):
    path = write(tmp_path / 'train.json', simple_coco())
    with pytest.warns(UserWarning, match=r'4 of 9 .*1 no area') as caught:
        statistics = ClassStatistics.from_annotation_file(path)
    assert any("such as 'dog'" in str(w.message) for w in caught)
    assert statistics == ClassStatistics(**SIMPLE)
    assert statistics.source == path


@pytest.mark.parametrize('boxes', [[], [(0, 0, {'area': 0})] * 3])
def test_a_file_without_a_box_to_train(tmp_path, boxes):
    path = write(tmp_path / 'train.json', coco(2, 'ab', boxes))
    dataset = coco_dataset(path, metainfo={'classes': ('a', 'b')})
    for count, source in (
        (ClassStatistics.from_annotation_file, path),
        (ClassStatistics.from_dataset, dataset),
    ):
        with pytest.raises(LongTailError, match=r'train\.json: .*box'):
            count(source)


def test_ids_may_be_strings():
    content = simple_coco()
    for image in content['images']:
        image['id'] = str(image['id'])
    for box in content['annotations']:
        box['image_id'] = str(box['image_id'])
        del box['bbox']
        box['bbox'] = [0, 0, 1, 1]
    content['annotations'][-1]['area'] = 0
    statistics = ClassStatistics.from_annotations(
        parse_annotations(content, '')
    )
    assert statistics == ClassStatistics(**SIMPLE)


def test_classes_without_a_box_are_legal():
    statistics = ClassStatistics(('a', 'b'), [0, 0], [0, 0], 3, 0)
    assert statistics.image_count.tolist() == [0, 0]
    assert statistics.frequency_group() == ('rare', 'rare')
    assert statistics.tail_ratio(1.0) == 0
    assert statistics.threshold_for_tail_ratio(0.09) == 1
    assert statistics.bin_index((10,)).tolist() == [0, 0]


# what is derived from the counts


def test_frequency_group_edges():
    statistics = one_box_per_image([0, 1, 10, 11, 100, 101], 1000)
    assert statistics.frequency_group() == (
        'rare',
        'rare',
        'rare',
        'common',
        'common',
        'frequent',
    )


def test_image_frequency_is_per_image_annotated_or_not():
    statistics = ClassStatistics(**SIMPLE)
    assert statistics.image_frequency.dtype == np.float64
    assert statistics.image_frequency.tolist() == [2 / 5, 0.0, 2 / 5]


def test_bin_edges_belong_to_the_upper_bin():
    counts = [0, 9, 10, 99, 100, 999, 1000, 5000]
    statistics = one_box_per_image(counts, 10000)
    index = statistics.bin_index((10, 100, 1000))
    assert index.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert index.dtype == np.int64
    assert statistics.bin_index((10000, 20000)).tolist() == [0] * 8
    assert statistics.bin_index([0.5]).tolist() == [0] + [1] * 7


@given(
    image_counts,
    st.sets(st.integers(1, 40), min_size=1, max_size=5).map(sorted),
)
def test_bin_index_equals_plain_loops(counts, edges):
    statistics = one_box_per_image(counts, 30)
    expected = [sum(count >= edge for edge in edges) for count in counts]
    assert statistics.bin_index(edges).tolist() == expected


def naive_tail_ratio(counts, num_images, threshold):
    tail = sum(n for n in counts if n / num_images < threshold)
    return tail / max(sum(counts), 1)


@given(image_counts, st.floats(0, 1), st.integers(30, 90))
def test_tail_ratio_equals_plain_loops(counts, threshold, num_images):
    statistics = one_box_per_image(counts, num_images)
    expected = naive_tail_ratio(counts, num_images, threshold)
    assert statistics.tail_ratio(threshold) == expected


@given(
    image_counts,
    st.one_of(st.floats(0, 1), st.integers(0, 40).map(lambda n: n / 40)),
    st.integers(30, 90),
)
def test_no_larger_threshold_keeps_the_tail_ratio(counts, limit, num_images):
    statistics = one_box_per_image(counts, num_images)
    threshold = statistics.threshold_for_tail_ratio(limit)
    assert 0 <= threshold <= 1
    assert naive_tail_ratio(counts, num_images, threshold) <= limit
    for larger in [math.nextafter(threshold, 2), 1.0]:
        if threshold < larger <= 1:
            assert naive_tail_ratio(counts, num_images, larger) > limit


def test_a_class_on_the_threshold_is_not_tail():
    statistics = one_box_per_image([1, 3, 10], 49)  # 3 / 49 is inexact
    assert statistics.tail_ratio(3 / 49) == 1 / 14
    assert statistics.tail_ratio(math.nextafter(3 / 49, 1)) == 4 / 14


@needs_shared_data
@pytest.mark.parametrize(
    'frequency_threshold, percent',
    [
        (0.0, 0.0),
        (0.176e-3, 0.93),
        (0.5e-3, 3.14),
        (0.8e-3, 4.88),
        (1.5e-3, 7.82),
        (1.76e-3, 9.08),
        (2e-3, 9.83),
        (3e-3, 13.12),
        (5e-3, 18.17),
    ],
)
def test_tail_ratios_are_those_of_the_eql_paper(frequency_threshold, percent):
    """Tan et al., CVPR 2020, Table 2."""
    ratio = lvis_statistics('v0.5').tail_ratio(frequency_threshold)
    assert 100 * ratio == pytest.approx(percent, abs=0.03)


@needs_shared_data
def test_tail_classes_of_lvis():
    v05, v1 = lvis_statistics('v0.5'), lvis_statistics('v1')
    assert (v05.image_frequency < 1.76e-3).sum() == 915
    assert (v05.image_frequency < 1.76e-4).sum() == 454
    # the released code counts annotated images only
    annotated = v1.image_count / v1.num_annotated_images
    assert (annotated < 1.1e-3).sum() == 815
    assert (v1.image_frequency < 1.0914e-3).sum() == 815


@needs_shared_data
@pytest.mark.parametrize(
    ('version', 'groups', 'bins'),
    [
        ('v0.5', [454, 461, 315], [294, 453, 302, 181]),
        ('v1', [337, 461, 405], [200, 412, 334, 257]),
    ],
)
def test_lvis_groups_and_bins(version, groups, bins):
    statistics = lvis_statistics(version)
    found = Counter(statistics.frequency_group())
    assert [found[g] for g in ('rare', 'common', 'frequent')] == groups
    assert np.bincount(statistics.bin_index((10, 100, 1000))).tolist() == bins


@needs_shared_data
def test_lvis_tail_of_the_paper():
    statistics = lvis_statistics('v0.5')
    assert statistics.num_images == 57263
    assert (statistics.image_frequency < 1.76e-3).sum() == 915
    assert statistics.tail_ratio(1.76e-3) == pytest.approx(0.0909, abs=5e-5)
    threshold = statistics.threshold_for_tail_ratio(0.0909)
    assert (statistics.image_frequency < threshold).sum() == 915


# the value type


def test_statistics_are_values():
    counts = np.array([2, 0, 2], dtype=np.int32)
    statistics = ClassStatistics(**{**SIMPLE, 'image_count': counts})
    counts[0] = 9
    assert statistics == ClassStatistics(**SIMPLE)
    assert statistics == ClassStatistics(**SIMPLE, source='elsewhere')
    assert statistics != ClassStatistics(**{**SIMPLE, 'num_images': 6})
    assert statistics != 'statistics'
    assert statistics.image_count.dtype == np.int64
    with pytest.raises(ValueError, match='read-only'):
        statistics.image_count[0] = 1
    with pytest.raises(AttributeError):
        statistics.num_images = 1
    assert repr(statistics) == 'ClassStatistics(3 classes, 5 boxes, 5 images)'


def test_json_schema_and_round_trip(tmp_path):
    statistics = ClassStatistics(**SIMPLE, source='train.json')
    path = tmp_path / 'made' / 'for it' / 'stats.json'
    statistics.save(path)
    assert json.loads(path.read_text()) == {
        'format': 'mmdet_longtail.class_statistics',
        'version': 1,
        'source': 'train.json',
        'num_images': 5,
        'num_annotated_images': 3,
        'classes': [
            {'name': 'cat', 'image_count': 2, 'instance_count': 3},
            {'name': 'dog', 'image_count': 0, 'instance_count': 0},
            {'name': 'bird', 'image_count': 2, 'instance_count': 2},
        ],
    }
    loaded = ClassStatistics.load(path)
    assert loaded == statistics
    assert loaded.source == 'train.json'
    assert [p.name for p in path.parent.iterdir()] == ['stats.json']


def test_save_leaves_nothing_half_written(tmp_path):
    (tmp_path / 'folder').mkdir()
    with pytest.raises(LongTailError, match='cannot be written'):
        ClassStatistics(**SIMPLE).save(tmp_path / 'folder')
    assert [p.name for p in tmp_path.iterdir()] == ['folder']


# mmdet's datasets


def coco_dataset(path, kind=CocoDataset, **settings):
    settings = {'data_prefix': {'img': ''}, **settings}
    return kind(ann_file=str(path), **settings)


FILTER = {'filter_empty_gt': True, 'min_size': 32}


@pytest.fixture
def simple_file(tmp_path):
    return write(tmp_path / 'train.json', simple_coco())


@pytest.mark.filterwarnings('ignore:.*train.json')
class TestFromDataset:
    @pytest.mark.parametrize('filter_cfg', [None, FILTER])
    @pytest.mark.parametrize('lazy_init', [False, True])
    def test_coco(self, simple_file, filter_cfg, lazy_init):
        dataset = coco_dataset(
            simple_file,
            metainfo={'classes': ('cat', 'dog', 'bird')},
            filter_cfg=filter_cfg,
            lazy_init=lazy_init,
        )
        statistics = ClassStatistics.from_dataset(dataset)
        assert statistics == ClassStatistics.from_annotation_file(simple_file)
        assert statistics.source == simple_file

    def test_data_root_and_backend(self, simple_file):
        dataset = coco_dataset(
            Path(simple_file).name,
            data_root=str(Path(simple_file).parent),
            backend_args={'backend': 'local'},
            metainfo={'classes': ('cat', 'dog', 'bird')},
        )
        statistics = ClassStatistics.from_dataset(dataset)
        assert statistics == ClassStatistics(**SIMPLE)

    def test_some_classes_of_the_file(self, simple_file):
        dataset = coco_dataset(simple_file, metainfo={'classes': ('bird',)})
        assert ClassStatistics.from_dataset(dataset) == ClassStatistics(
            ('bird',), [2], [2], 5, 2
        )

    def test_wrappers_change_nothing(self, simple_file):
        dataset = {
            'type': 'mmdet.CocoDataset',
            'ann_file': simple_file,
            'data_prefix': {'img': ''},
            'metainfo': {'classes': ('cat', 'dog', 'bird')},
            'filter_cfg': FILTER,
        }
        balanced = {
            'type': 'ClassBalancedDataset',
            'oversample_thr': 0.9,
            'dataset': dataset,
        }
        repeated = {'type': 'RepeatDataset', 'times': 3, 'dataset': dataset}
        mixed = {
            'type': 'MultiImageMixDataset',
            'pipeline': [],
            'dataset': {**repeated, 'dataset': balanced},
        }
        for config in (balanced, repeated, mixed):
            wrapper = DATASETS.build(config)
            assert len(wrapper) > 3  # images that have a box
            statistics = ClassStatistics.from_dataset(wrapper)
            assert statistics == ClassStatistics(**SIMPLE)

    @pytest.mark.parametrize('concat', [ConcatDataset, MMEngineConcatDataset])
    def test_concatenation_adds_up(self, tmp_path, simple_file, concat):
        other = write(
            tmp_path / 'other.json',
            coco(7, ['cat', 'dog', 'bird'], [(i, 1, {}) for i in range(6)]),
        )
        names = ('cat', 'dog', 'bird')
        parts = [
            coco_dataset(path, metainfo={'classes': names})
            for path in (simple_file, other)
        ]
        statistics = ClassStatistics.from_dataset(concat(parts))
        assert statistics == ClassStatistics(
            names, [2, 6, 2], [3, 6, 2], 12, 9
        )
        assert statistics.source == f'{simple_file}, {other}'

    def test_repeated_concatenation(self, simple_file):
        part = {
            'type': 'mmdet.CocoDataset',
            'ann_file': simple_file,
            'data_prefix': {'img': ''},
            'metainfo': {'classes': ('cat', 'dog', 'bird')},
        }
        concatenated = {'type': 'mmdet.ConcatDataset', 'datasets': [part] * 2}
        dataset = RepeatDataset(concatenated, times=3)
        assert ClassStatistics.from_dataset(dataset) == ClassStatistics(
            ('cat', 'dog', 'bird'), [4, 0, 4], [6, 0, 4], 10, 6
        )

    @pytest.mark.parametrize(
        ('names', 'message'),
        [
            (['cat', 'cow', 'bird'], "class 1 is 'cow' .* but 'dog'"),
            (['cat', 'dog'], 'has 2 classes, but .* has 3'),
        ],
    )
    def test_concatenated_classes_must_agree(
        self, tmp_path, simple_file, names, message
    ):
        other = write(tmp_path / 'other.json', coco(1, names, []))
        dataset = ConcatDataset(
            [
                coco_dataset(
                    simple_file, metainfo={'classes': SIMPLE['class_names']}
                ),
                coco_dataset(other, metainfo={'classes': tuple(names)}),
            ]
        )
        with pytest.raises(LongTailError, match=message):
            ClassStatistics.from_dataset(dataset)

    @pytest.mark.parametrize(
        ('classes', 'message'),
        [
            (('cat', 'cow', 'bird'), "no category is named 'cow'"),
            (('bird', 'dog', 'cat'), "class 0 is 'cat' in .* but 'bird'"),
        ],
    )
    def test_coco_classes_must_fit_the_labels(
        self, simple_file, classes, message
    ):
        dataset = coco_dataset(simple_file, metainfo={'classes': classes})
        with pytest.raises(LongTailError, match=message):
            ClassStatistics.from_dataset(dataset)

    def test_a_name_of_two_categories(self, tmp_path):
        path = write(tmp_path / 'train.json', coco(1, ['cat', 'cat'], []))
        dataset = coco_dataset(path, metainfo={'classes': ('cat',)})
        with pytest.raises(LongTailError, match="labels the category 'cat'"):
            ClassStatistics.from_dataset(dataset)

    def test_lvis_ignores_a_choice_of_classes(self, simple_file):
        dataset = coco_dataset(
            simple_file, LVISV05Dataset, metainfo={'classes': ('cat', 'dog')}
        )
        with pytest.raises(LongTailError, match="labels the category 'bird'"):
            ClassStatistics.from_dataset(dataset)

    def test_lvis_may_spell_a_class_differently(self, simple_file):
        names = ('cat', 'hound', 'bird')
        dataset = coco_dataset(
            simple_file, LVISV05Dataset, metainfo={'classes': names}
        )
        assert ClassStatistics.from_dataset(
            dataset
        ) == ClassStatistics.from_annotation_file(simple_file)

    def test_objects365_sorts_its_categories(self, tmp_path):
        content = simple_coco()
        content['categories'].reverse()
        path = write(tmp_path / 'train.json', content)
        dataset = coco_dataset(
            path,
            Objects365V1Dataset,
            metainfo={'classes': ('cat', 'dog', 'bird')},
        )
        assert ClassStatistics.from_dataset(dataset) == ClassStatistics(
            **SIMPLE
        )

    def test_v3det(self, tmp_path, simple_file):
        (tmp_path / 'names.txt').write_text('cat\ndog\nbird\n')
        dataset = coco_dataset(
            'train.json',
            V3DetDataset,
            data_root=str(tmp_path),
            label_file='names.txt',
            filter_cfg=FILTER,
        )
        assert ClassStatistics.from_dataset(dataset) == ClassStatistics(
            **SIMPLE
        )


class OtherRules(CocoDataset):
    """Yields the boxes of images 0 and 1, and of these one of each class."""

    def parse_data_info(self, raw_data_info):
        info = super().parse_data_info(raw_data_info)
        image = raw_data_info['raw_img_info']['id']
        by_label = {i['bbox_label']: i for i in info['instances']}
        info['instances'] = [*by_label.values()] if image >= 99 else []
        return info


class AllBoxes(CocoDataset):
    """Yields all boxes, whatever their area."""

    def parse_data_info(self, raw_data_info):
        for box in raw_data_info['raw_ann_info']:
            box['area'] = 1
        return super().parse_data_info(raw_data_info)


MIXED = [
    (0, 0, {}),
    (0, 0, {'bbox': [3, 3, 9, 9]}),
    (0, 1, {'area': 0}),
    (1, 1, {'iscrowd': 1}),
    (1, 1, {}),
    (2, 2, {}),
    (2, 0, {'bbox': [70, 0, 9, 9]}),
]


@pytest.mark.parametrize(
    ('kind', 'options', 'counts', 'num_images', 'dropped'),
    [
        (CocoDataset, {}, [2, 1, 1], 3, {}),
        (
            CocoDataset,
            {'filter_cfg': {'min_size': 32}},
            [2, 1, 0],
            3,
            {(2, FILTERED): 1},
        ),
        (CocoDataset, {'indices': [0]}, [2, 0, 0], 1, {(1, IGNORED): 0}),
        (CocoDataset, {'test_mode': True}, [2, 1, 1], 3, {}),
        (OtherRules, {}, [1, 1, 0], 3, {(0, OTHER): 1, (2, OTHER): 1}),
        (
            AllBoxes,
            {},
            [2, 2, 1],
            3,
            {(1, IGNORED): 0, (1, NO_AREA): 0, (1, OTHER): 1},
        ),
    ],
)
@pytest.mark.filterwarnings('ignore:.*train.json')
def test_counts_are_of_the_boxes_that_a_dataset_yields(
    tmp_path, kind, options, counts, num_images, dropped
):
    content = coco(3, 'abc', MIXED)
    content['images'][2].update(width=20, height=40)
    path = write(tmp_path / 'train.json', content)
    dataset = coco_dataset(
        path, kind, metainfo={'classes': tuple('abc')}, **options
    )
    statistics = ClassStatistics.from_dataset(dataset)
    yielded = Counter(
        instance['bbox_label']
        for i in range(len(dataset))
        for instance in dataset.get_data_info(i)['instances']
        if not instance['ignore_flag']
    )
    assert statistics.instance_count.tolist() == [yielded[c] for c in range(3)]
    assert statistics.instance_count.tolist() == counts
    assert statistics.num_images == num_images
    [annotations] = read_annotations(dataset)
    expected = {(0, OUTSIDE): 1, (1, NO_AREA): 1, (1, IGNORED): 1}
    if 'indices' in options:
        expected = {(1, NO_AREA): 1}
    expected |= dropped
    for label in range(3):
        for reason in range(len(DROP_REASONS)):
            number = annotations.dropped[label, reason]
            assert number == expected.get((label, reason), 0)


def test_a_part_without_boxes_is_legal(tmp_path):
    """Images of background only may be added to a training set."""
    paths = [
        write(tmp_path / f'{name}.json', coco(2, 'ab', boxes))
        for name, boxes in (('some', [(0, 0, {})]), ('none', []))
    ]
    dataset = ConcatDataset(
        [coco_dataset(p, metainfo={'classes': ('a', 'b')}) for p in paths]
    )
    with pytest.warns(UserWarning, match=r'none\.json'):
        statistics = ClassStatistics.from_dataset(dataset)
    assert statistics == ClassStatistics(('a', 'b'), [1, 0], [1, 0], 4, 1)


def test_lvis_v0_5_counts_images_without_boxes(tmp_path):
    """Per annotated image the threshold of the paper selects 912 classes."""
    num_images, num_annotated, threshold = 57263, 56740, 1.76e-3
    image_count = [28] * 912 + [100] * 3 + [101] * 315
    assert 100 / num_images < threshold <= 100 / num_annotated
    boxes = []
    for label, count in enumerate(image_count):
        for _ in range(count):
            boxes.append((len(boxes) % num_annotated, label, {}))
    assert len(boxes) > num_annotated
    names = LVISV05Dataset.METAINFO['classes']
    path = write(tmp_path / 'train.json', coco(num_images, names, boxes))
    dataset = coco_dataset(path, LVISV05Dataset, filter_cfg=FILTER)
    assert len(dataset) == num_annotated

    statistics = ClassStatistics.from_dataset(dataset)

    assert statistics == ClassStatistics.from_annotation_file(path)
    assert statistics.image_count.tolist() == image_count
    assert statistics.num_images == num_images
    assert statistics.num_annotated_images == num_annotated
    assert (statistics.image_frequency < threshold).sum() == 915
    per_annotated = statistics.image_count / len(dataset)
    assert (per_annotated < threshold).sum() == 912


VOC_IMAGES = {
    # name, xmin, ymin, xmax, ymax, difficult
    'a': [('cat', 1, 1, 50, 50, 0), ('cat', 5, 5, 9, 9, 0)],
    'b': [('cat', 1, 1, 50, 50, 1), ('dog', 1, 1, 50, 50, 0)],
    'c': [],
    'd': [('dog', 7, 7, 7, 50, 0), ('tree', 1, 1, 50, 50, 0)],
}


@pytest.fixture
def voc_root(tmp_path):
    folder = tmp_path / 'VOC2007'
    for sub in ('Annotations', 'ImageSets/Main'):
        (folder / sub).mkdir(parents=True)
    for image, boxes in VOC_IMAGES.items():
        objects = ''.join(
            f'<object><name>{name}</name><difficult>{difficult}</difficult>'
            f'<bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax>'
            f'<ymax>{y2}</ymax></bndbox></object>'
            for name, x1, y1, x2, y2, difficult in boxes
        )
        (folder / f'Annotations/{image}.xml').write_text(
            '<annotation><size><width>64</width><height>64</height></size>'
            f'{objects}</annotation>'
        )
    (folder / 'ImageSets/Main/trainval.txt').write_text(
        '\n'.join(VOC_IMAGES) + '\n'
    )
    return tmp_path


@pytest.mark.parametrize(
    ('filter_cfg', 'image_count', 'instance_count', 'warning'),
    [
        (None, [1, 2], [2, 2], 'zero or negative size'),
        (
            {'filter_empty_gt': True, 'min_size': 32, 'bbox_min_size': 32},
            [1, 1],
            [1, 1],
            '3 of 5',
        ),
    ],
)
def test_voc(voc_root, filter_cfg, image_count, instance_count, warning):
    dataset = VOCDataset(
        ann_file='VOC2007/ImageSets/Main/trainval.txt',
        data_root=str(voc_root),
        data_prefix={'sub_data_root': 'VOC2007/'},
        metainfo={'classes': ('cat', 'dog')},
        filter_cfg=filter_cfg,
    )
    num_images = len(dataset)
    with pytest.warns(UserWarning, match=warning):
        statistics = ClassStatistics.from_dataset(
            RepeatDataset(dataset, times=2)
        )
    assert statistics == ClassStatistics(
        ('cat', 'dog'),
        image_count,
        instance_count,
        num_images=4,
        num_annotated_images=sum(image_count),
    )
    assert len(dataset) == num_images


@pytest.fixture
def open_images(tmp_path):
    (tmp_path / 'labels.csv').write_text('/m/1,Cat\n/m/2,Dog\n/m/3,Cow\n')
    boxes = [
        ('a', '/m/2'),
        ('a', '/m/2'),
        ('a', '/m/1'),
        ('b', '/m/2'),
    ]
    header = (
        'ImageID Source LabelName Confidence XMin XMax YMin YMax IsOccluded '
        'IsTruncated IsGroupOf IsDepiction IsInside'
    )
    with open(tmp_path / 'boxes.csv', 'w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(header.split())
        for image, label in boxes:
            writer.writerow(
                [image, 'x', label, 1, 0.1, 0.5, 0.1, 0.5, 0, 0, 0, 0, 0]
            )
    write(tmp_path / 'hierarchy.json', {'LabelName': '/m/0'})
    # mmdet reads the image sizes from a pickle.
    mmengine.dump(
        [
            {'filename': f'{image}.jpg', 'ori_shape': (64, 64, 3)}
            for image in 'ab'
        ],
        tmp_path / 'metas.pkl',
    )
    return OpenImagesDataset(
        ann_file='boxes.csv',
        label_file='labels.csv',
        hierarchy_file='hierarchy.json',
        meta_file='metas.pkl',
        data_root=str(tmp_path),
        data_prefix={'img': ''},
    )


def test_open_images(open_images):
    assert ClassStatistics.from_dataset(open_images) == ClassStatistics(
        ('Cat', 'Dog', 'Cow'), [1, 2, 0], [1, 3, 0], 2, 2
    )


def test_a_label_outside_the_classes(open_images):
    open_images._metainfo['classes'] = ('Cat',)
    with pytest.raises(LongTailError, match=r'label 1, but .* has 1 classes'):
        ClassStatistics.from_dataset(open_images)


def test_a_dataset_without_boxes(open_images):
    open_images.get_data_info = lambda index: {'img_id': index}
    with pytest.raises(LongTailError, match="gives no usable 'instances'"):
        ClassStatistics.from_dataset(open_images)


# bad input


def broken(**changes):
    """A content with some keys replaced; ... removes one."""
    content = {**simple_coco(), **changes}
    return {key: value for key, value in content.items() if value is not ...}


def broken_box(**changes):
    content = simple_coco()
    box = {**content['annotations'][3], **changes}
    content['annotations'][3] = {
        key: value for key, value in box.items() if value is not ...
    }
    return content


BAD_ANNOTATIONS = {
    'a list': ([], 'expected a JSON object'),
    'no categories': (broken(categories=...), "'categories' is missing"),
    'no images': (broken(images=...), "'images' is missing"),
    'no annotations': (broken(annotations=...), "'annotations' is missing"),
    'annotations null': (broken(annotations=None), "'annotations' is missing"),
    'statistics': (
        ClassStatistics(**SIMPLE).to_dict(),
        "'categories' is missing, found 'format'",
    ),
    'zero images': (broken(images=[]), "'images' is empty"),
    'zero categories': (broken(categories=[]), "'categories' is empty"),
    'category id twice': (
        broken(categories=[{'id': 1, 'name': 'a'}, {'id': 1, 'name': 'b'}]),
        r"categories\[0\] has the 'id' 1, which is there more",
    ),
    'image id twice': (
        broken(images=[{'id': 'x'}] * 3),
        r"images\[0\] has the 'id' 'x', which is there more",
    ),
    'category without id': (
        broken(categories=[{'name': 'a'}]),
        r"categories\[0\] has no 'id'",
    ),
    'image is a string': (
        broken(images=['a.jpg']),
        r'images\[0\] is not an object',
    ),
    'category without name': (
        broken(categories=[{'id': i, 'name': 7} for i in (50, 57, 64)]),
        r'categories\[0\] has name 7',
    ),
    'unknown category': (
        broken_box(category_id=9),
        r"annotations\[3\] has category_id 9, but no entry of 'categories'",
    ),
    'unknown image': (
        broken_box(image_id=999),
        r"annotations\[3\] has image_id 999, but no entry of 'images'",
    ),
    'category is a list': (
        broken_box(category_id=[50]),
        r'annotations\[3\] has category_id \[50\]',
    ),
    'no category_id': (
        broken_box(category_id=...),
        r"annotations\[3\] has no 'category_id'",
    ),
    'no image_id': (
        broken_box(image_id=...),
        r"annotations\[3\] has no 'image_id'",
    ),
    'no bbox': (broken_box(bbox=...), r"annotations\[3\] has no 'bbox'"),
    'short bbox': (
        broken_box(bbox=[1, 2, 3]),
        r'annotations\[3\] has bbox \[1, 2, 3\]; expected four finite',
    ),
    'text in bbox': (
        broken_box(bbox=[1, 2, '3', 4]),
        r'annotations\[3\] has bbox',
    ),
    'annotation is null': (
        broken(annotations=[None]),
        r'annotations\[0\] is not an object',
    ),
}


@pytest.mark.parametrize('case', BAD_ANNOTATIONS)
def test_bad_annotations(tmp_path, case):
    content, message = BAD_ANNOTATIONS[case]
    path = write(tmp_path / 'train.json', content)
    with pytest.raises(LongTailError, match=message) as caught:
        ClassStatistics.from_annotation_file(path)
    assert str(caught.value).startswith(f'{path}: ')
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (None, 'no such file'),
        (b'', 'not valid JSON'),
        (b'{"images": [{"id": 1}', 'not valid JSON .* is the file complete'),
        (b'\xff\xfe\x00', 'cannot be read'),
    ],
)
@pytest.mark.parametrize(
    'read', [ClassStatistics.from_annotation_file, ClassStatistics.load]
)
def test_bad_files(tmp_path, content, message, read):
    path = tmp_path / 'train.json'
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LongTailError, match=message) as caught:
        read(path)
    assert '\n' not in str(caught.value)
    with pytest.raises(LongTailError, match='cannot be read'):
        read(tmp_path)


def changed(**changes):
    content = {**ClassStatistics(**SIMPLE).to_dict(), **changes}
    return {key: value for key, value in content.items() if value is not ...}


def changed_class(**changes):
    content = ClassStatistics(**SIMPLE).to_dict()
    content['classes'][0].update(changes)
    return content


BAD_STATISTICS = {
    'a list': ([], "expected 'format'"),
    'annotations': (simple_coco(), "expected 'format'"),
    'another version': (changed(version=2), 'version 2, expected 1'),
    'no classes': (changed(classes=...), "lack 'classes'"),
    'zero classes': (changed(classes=[]), 'at least one class'),
    'classes of names': (changed(classes=['a']), 'list of objects'),
    'a class without count': (
        changed(classes=[{'name': 'a', 'image_count': 1}]),
        "lack 'instance_count'",
    ),
    'no num_images': (changed(num_images=...), "lack 'num_images'"),
    'zero images': (
        changed(num_images=0, num_annotated_images=0),
        'num_images is 0',
    ),
    'fractional images': (changed(num_images=5.5), 'num_images is 5.5'),
    'true images': (changed(num_images=True), 'num_images is True'),
    'negative annotated': (
        changed(num_annotated_images=-1),
        'num_annotated_images is -1',
    ),
    'too many annotated': (
        changed(num_annotated_images=6),
        r'num_annotated_images is 6, more than num_images \(5\)',
    ),
    'too few boxes': (
        changed(num_annotated_images=5),
        'image_count sums to 4, but each of the 5 annotated',
    ),
    'negative count': (
        changed_class(image_count=-2),
        "class 'cat': image_count is -2",
    ),
    'more images than boxes': (
        changed_class(instance_count=1),
        "class 'cat': image_count is 2 with an instance_count of 1",
    ),
    'boxes in no image': (
        changed_class(image_count=0),
        "class 'cat': image_count is 0 with an instance_count of 3",
    ),
    'more images than there are': (
        changed_class(image_count=4, instance_count=4),
        r"class 'cat': image_count is 4, more than num_annotated_images \(3\)",
    ),
    'fractional count': (
        changed_class(image_count=1.5),
        'image_count: expected whole numbers',
    ),
    'count is a list': (
        changed_class(image_count=[1]),
        'image_count: expected whole numbers',
    ),
    'name is a number': (changed_class(name=3), 'class_names: expected'),
}


@pytest.mark.parametrize('case', BAD_STATISTICS)
def test_bad_statistics(tmp_path, case):
    content, message = BAD_STATISTICS[case]
    path = write(tmp_path / 'stats.json', content)
    with pytest.raises(LongTailError, match=message) as caught:
        ClassStatistics.load(path)
    assert str(caught.value).startswith(f'{path}: ')
    assert '\n' not in str(caught.value)


def test_counts_of_another_length():
    with pytest.raises(LongTailError, match='each of the 3 classes'):
        ClassStatistics(**{**SIMPLE, 'image_count': np.array([1, 1])})


@pytest.mark.parametrize(
    'bin_edges',
    [
        (),
        (10, 10),
        (100, 10),
        (0, 10),
        (-1,),
        (math.inf,),
        (math.nan,),
        10,
        ('10', '100'),
        [[10, 100]],
        None,
    ],
)
def test_bad_bin_edges(bin_edges):
    with pytest.raises(LongTailError, match='bin_edges is'):
        ClassStatistics(**SIMPLE).bin_index(bin_edges)


@pytest.mark.parametrize('value', [-0.1, 1.1, math.nan, '0.5', None, True])
def test_bad_fractions(value):
    statistics = ClassStatistics(**SIMPLE)
    with pytest.raises(LongTailError, match='frequency_threshold is'):
        statistics.tail_ratio(value)
    with pytest.raises(LongTailError, match='tail_ratio is'):
        statistics.threshold_for_tail_ratio(value)


@pytest.mark.parametrize('classes', [None, (), 'cat'])
def test_bad_metainfo_classes(open_images, classes):
    open_images._metainfo['classes'] = classes
    with pytest.raises(LongTailError, match=r'metainfo\.classes is'):
        ClassStatistics.from_dataset(open_images)

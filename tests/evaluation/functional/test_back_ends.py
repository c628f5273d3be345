"""The fast back end against lvis and pycocotools."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from detection_sets import (
    SHARED_DATA,
    as_results,
    coco_dataset,
    federated_dataset,
    lvis_val_100,
    make_spec,
    perturbed,
    write_json,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.evaluation.functional import (
    UNLIMITED,
    Detections,
    EvaluationSpec,
    GroundTruth,
    back_ends,
)
from mmdet_longtail.evaluation.functional.back_ends import fast, reference
from mmdet_longtail.testing.glyphs import GlyphSettings, make_glyphs


def assert_same_curves(spec, limit=None):
    spec = replace(spec, max_detections=limit)
    ours, theirs = fast(spec), reference(spec)
    np.testing.assert_allclose(ours.precision, theirs.precision, atol=1e-9)
    np.testing.assert_allclose(ours.recall, theirs.recall, atol=1e-9)
    return ours


# ------------------------------------------ the fast one and the reference


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
@pytest.mark.parametrize('limit', [1, 10, 300, UNLIMITED])
@pytest.mark.parametrize('make', [federated_dataset, coco_dataset])
def test_back_ends_agree(tmp_path, make, limit, iou_type):
    """Crowds, wrong and unverified classes, doubles, empty masks, sizes."""
    dataset = make(1, with_masks=True)
    detections = perturbed(dataset, 1, with_masks=True)
    spec = make_spec(tmp_path, dataset, detections, iou_type)
    curves = assert_same_curves(spec, limit)
    assert (curves.precision > 0).any()


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_back_ends_agree_on_lvis(tmp_path, iou_type):
    _, dataset, _ = lvis_val_100()
    detections = perturbed(dataset, 0, with_masks=iou_type == 'segm')
    spec = make_spec(tmp_path, dataset, detections, iou_type)
    assert_same_curves(spec, 300)


def test_back_ends_agree_on_glyphs(tmp_path):
    make_glyphs(tmp_path, GlyphSettings(20, 40, 64, 12.0), num_processes=1)
    annotations = tmp_path / 'annotations' / 'val.json'
    ground_truth = GroundTruth.load(str(annotations))
    detections = perturbed(ground_truth.dataset, 2)
    results = as_results(detections, 'bbox')
    found = Detections.from_results(results, ground_truth, 'bbox', 'test')
    assert_same_curves(EvaluationSpec(ground_truth, found), 300)


def test_back_ends_agree_on_arithmetic_lt():
    path = SHARED_DATA / 'arithmetic_lt' / 'annotations' / 'arith_val.json'
    if not path.exists():
        pytest.skip('no ../shared/data')
    ground_truth = GroundTruth.load(str(path))
    detections = perturbed(ground_truth.dataset, 3)
    results = as_results(detections, 'bbox')
    found = Detections.from_results(results, ground_truth, 'bbox', 'test')
    assert_same_curves(EvaluationSpec(ground_truth, found), 300)


@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_images=st.integers(1, 8),
    make=st.sampled_from([federated_dataset, coco_dataset]),
)
def test_back_ends_agree_on_any_set(tmp_path_factory, seed, num_images, make):
    # 66 classes: 22 in each frequency group.
    dataset = make(seed, num_images=num_images, num_classes=66)
    folder = tmp_path_factory.mktemp('any')
    spec = make_spec(folder, dataset, perturbed(dataset, seed))
    assert_same_curves(spec, 300)


@pytest.mark.parametrize('make', [federated_dataset, coco_dataset])
def test_classes_in_parts_change_nothing(tmp_path, make, monkeypatch):
    dataset = make(6, num_images=6, num_classes=30)
    spec = make_spec(tmp_path, dataset, perturbed(dataset, 6))
    expected = fast(spec)
    monkeypatch.setattr(back_ends, 'CLASSES_AT_ONCE', 7)
    found = fast(spec)
    np.testing.assert_array_equal(found.precision, expected.precision)
    np.testing.assert_array_equal(found.recall, expected.recall)
    assert (found.precision > 0).any()


def test_back_ends_agree_on_equal_scores(tmp_path):
    """The order of the images decides, in both."""
    for dataset in (federated_dataset(4), coco_dataset(4)):
        detections = perturbed(dataset, 4)
        for detection in detections:
            detection['scores'] = np.round(detection['scores'] * 3) / 3
        spec = make_spec(tmp_path, dataset, detections)
        assert_same_curves(spec, UNLIMITED)


def test_back_ends_agree_on_ignored_and_empty_objects(tmp_path):
    """lvis leaves out what has no area, and honours the mark `ignore`."""
    dataset = federated_dataset(5)
    for number, annotation in enumerate(dataset['annotations']):
        if number % 7 == 0:
            annotation['area'] = 0
    spec = make_spec(tmp_path, dataset, perturbed(dataset, 5))
    without_area = assert_same_curves(spec, 300)
    for number, annotation in enumerate(dataset['annotations']):
        annotation['ignore'] = int(number % 5 == 0)
    spec = make_spec(tmp_path, dataset, perturbed(dataset, 5))
    ignored = assert_same_curves(spec, 300)
    assert (ignored.precision != without_area.precision).any()


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_back_ends_agree_on_nothing_found(tmp_path, iou_type):
    for dataset in (
        federated_dataset(6, 5, 12, with_masks=True),
        coco_dataset(6, num_images=5, num_classes=12, with_masks=True),
    ):
        spec = make_spec(tmp_path, dataset, [], iou_type)
        curves = assert_same_curves(spec, 300)
        assert curves.precision.max() == 0


# -------------------------------------------------------------- odd files


RLE = {'size': [160, 160], 'counts': [25000, 300, 300]}
ODD_FIELDS = {
    'iscrowd': [
        0,
        1,
        True,
        False,
        ...,
        '0',
        'no',
        None,
        2,
        0.5,
        [0],
        math.nan,
    ],
    'ignore': [0, 1, True, None, ..., '0', 2],
    'area': [0, 1, 0.5, 1e10, ..., -1, 1e308, math.nan, math.inf, '9', None],
    'bbox': [
        [0, 0, 0, 0],
        [-9, -9, 20, 20],
        [150, 150, 40, 40],
        [1e6, 0, 9, 9],
        [0.1, 0.1, 0.5, 0.5],
        [1e308, 0, 9, 9],
        [0, 0, 1e308, 9],
        [9, 9, -5, 9],
        [math.nan, 0, 9, 9],
        [0, 0, 9],
        ['1', 2, 3, 4],
        None,
        ...,
    ],
    'segmentation': [
        [[0, 0, 40, 0, 40, 40]],
        [[0, 0, 40, 0, 40, 40], [1, 2, 3, 4]],
        [[1, 2, 3, 4], [0, 0, 40, 0, 40, 40]],
        [[0, 0, 40, 0, 40, 40, 7]] * 2 + [[0, 0, 40, 0, 40, 40]],
        [[-50, -50, 300, -50, 300, 300]],
        RLE,
        {'size': [160, 160], 'counts': 'PPYo1'},
        {'size': [160, 160], 'counts': 'abc'},
        {'size': [160, 160], 'counts': ''},
        {'size': [160, 160], 'counts': [5, 5]},
        {'size': [160, 160], 'counts': [-5, 25605]},
        {'size': [100, 160], 'counts': [16000]},
        {'size': [160, 160]},
        [],
        [[]],
        [[1, 2, 3, 4]],
        [0, 0, 40, 0, 40, 40],
        [RLE],
        [['0', '0', '40', '0', '40', '40']],
        [[[0, 0], [40, 0], [40, 40]]],
        [[0, 0, math.nan, 0, 40, 40]],
        [[0, 0, math.inf, 0, 40, 40]],
        [[0, 0, 1e9, 0, 40, 40]],
        'text',
        None,
        ...,
    ],
}
ODD_CASES = [
    (key, position)
    for key, values in ODD_FIELDS.items()
    for position in range(len(values))
]


def odd_spec(folder, make, changes, iou_type):
    """A set in which a field of some annotations has an odd value."""
    dataset = make(9, num_images=4, num_classes=9, with_masks=True)
    detections = perturbed(dataset, 9, with_masks=True)
    annotations = dataset['annotations']
    for row, key, position in changes:
        value = ODD_FIELDS[key][position]
        annotation = annotations[row % len(annotations)]
        annotation[key] = value
        if value is ...:
            del annotation[key]
    return make_spec(folder, dataset, detections, iou_type)


def agree_or_refuse(folder, *arguments):
    """Compare the back ends; return whether the file is not refused."""
    try:
        spec = odd_spec(folder, *arguments)
    except LongTailError as error:
        assert '\n' not in str(error) and 'annotations[' in str(error)
        return False
    assert_same_curves(spec, 300)
    return True


@pytest.mark.parametrize('make', [federated_dataset, coco_dataset])
def test_back_ends_agree_on_each_odd_field(tmp_path, make):
    refused = dict.fromkeys(ODD_FIELDS, 0)
    for key, position in ODD_CASES:
        changes = [(row, key, position) for row in (1, 4)]
        agrees = [
            agree_or_refuse(tmp_path, make, changes, iou_type)
            for iou_type in ('bbox', 'segm')
        ]
        assert agrees[0] or not agrees[1]
        refused[key] += not agrees[1]
    assert refused == dict(
        iscrowd=7, ignore=2, area=7, bbox=8, segmentation=20
    )


@settings(deadline=None, max_examples=40)
@given(
    make=st.sampled_from([federated_dataset, coco_dataset]),
    iou_type=st.sampled_from(['bbox', 'segm']),
    changes=st.lists(
        st.tuples(st.integers(0, 50), st.sampled_from(ODD_CASES)).map(
            lambda pair: (pair[0], *pair[1])
        ),
        max_size=4,
    ),
)
def test_back_ends_agree_on_odd_files(
    tmp_path_factory, make, iou_type, changes
):
    folder = tmp_path_factory.mktemp('odd')
    agree_or_refuse(folder, make, changes, iou_type)


@pytest.mark.parametrize(
    'change',
    [
        lambda image: image.update(width=None, height='160'),
        lambda image: image.pop('width'),
        lambda image: image.update(width=160.5),
    ],
)
def test_only_masks_need_the_size_of_an_image(tmp_path, change):
    dataset = coco_dataset(9, num_images=4, num_classes=9, with_masks=True)
    detections = perturbed(dataset, 9)
    change(dataset['images'][0])
    assert_same_curves(make_spec(tmp_path, dataset, detections), 300)
    with pytest.raises(LongTailError, match=r'images\[0\] has .*width'):
        GroundTruth.load(str(tmp_path / 'val.json'), ['segm'])


@pytest.mark.parametrize('section', ['images', 'categories'])
def test_ids_of_two_types_are_refused(tmp_path, section):
    """Evaluators sort them."""
    dataset = coco_dataset(9, num_images=4, num_classes=9)
    key = {'images': 'image_id', 'categories': 'category_id'}[section]
    old = dataset[section][1]['id']
    dataset[section][1]['id'] = f'{old}'
    for annotation in dataset['annotations']:
        if annotation[key] == old:
            annotation[key] = f'{old}'
    path = write_json(tmp_path / 'val.json', dataset)
    with pytest.raises(LongTailError, match='strings only'):
        GroundTruth.load(path)


@pytest.mark.parametrize('make', [federated_dataset, coco_dataset])
def test_the_order_of_a_file_changes_nothing(tmp_path, make):
    """Labels follow the file, also if its ids are not in their order."""
    dataset = make(3, num_images=6, num_classes=9)
    detections = perturbed(dataset, 3)
    curves = assert_same_curves(make_spec(tmp_path, dataset, detections), 300)
    ids = [category['id'] for category in dataset['categories']]
    assert ids != sorted(ids)
    order = np.argsort(ids)
    dataset['categories'].sort(key=lambda category: category['id'])
    random.Random(0).shuffle(dataset['images'])
    by_id = assert_same_curves(make_spec(tmp_path, dataset, detections), 300)
    expected = curves.precision[:, :, order]
    np.testing.assert_allclose(by_id.precision, expected, atol=1e-9)
    assert (curves.precision > 0).any()

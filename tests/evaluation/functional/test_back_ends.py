"""The fast back end against lvis and pycocotools."""

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
)
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_longtail.evaluation.functional import (
    UNLIMITED,
    Detections,
    EvaluationSpec,
    GroundTruth,
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

"""Encodings are those of pycocotools, byte by byte."""

import weakref

import cv2
import numpy as np
import pytest
from detection_sets import (
    as_data_samples,
    federated_dataset,
    perturbed,
    statistics_of,
    write_json,
)
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as mask_utils

from mmdet_longtail.evaluation.functional import encode_masks
from mmdet_longtail.evaluation.metrics import FrequencyGroupMetric


def reference(masks):
    """Encode each mask as a whole."""
    return [mask_utils.encode(np.asfortranarray(m, np.uint8)) for m in masks]


@given(
    n=st.integers(0, 40),
    height=st.integers(1, 9),
    width=st.integers(1, 140),
    density=st.sampled_from([0.0, 0.01, 0.3, 0.97, 1.0]),
    seed=st.integers(0, 1000),
)
def test_random_masks(n, height, width, density, seed):
    random = np.random.default_rng(seed)
    masks = random.random((n, height, width)) < density
    assert encode_masks(masks) == reference(masks)


@given(
    height=st.integers(1, 12),
    width=st.integers(1, 70),
    boxes=st.lists(
        st.tuples(*[st.integers(-5, 75)] * 4), min_size=1, max_size=20
    ),
)
def test_boxes_over_the_border(height, width, boxes):
    y, x = np.ogrid[:height, :width]
    masks = np.array(
        [(x >= a) & (x < b) & (y >= c) & (y < d) for a, b, c, d in boxes]
    )
    assert encode_masks(masks) == reference(masks)


@pytest.mark.parametrize('size', [(1, 1), (5, 1), (1, 64), (6, 7), (9, 129)])
def test_every_single_pixel(size):
    pixels = np.eye(size[0] * size[1], dtype=bool).reshape(-1, *size)
    for masks in (pixels, ~pixels):
        assert encode_masks(masks) == reference(masks)


@pytest.mark.parametrize('size', [(3, 0, 5), (3, 5, 0), (0, 5, 5), (0, 0, 0)])
def test_nothing_to_encode(size):
    masks = np.zeros(size, bool)
    assert encode_masks(masks) == reference(masks)


def polygon_masks(n, height, width):
    """Draw stars with holes, some beyond the border or out of the image."""
    random = np.random.default_rng(0)
    masks = np.zeros((n, height, width), np.uint8)
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    for mask in masks:
        center = random.uniform(-0.2, 1.2, 2) * (width, height)
        radius = random.uniform(0.02, 0.8) * height
        for scale, value in ((1, 1), (0.4, 0)):
            length = scale * radius * random.uniform(0.3, 1, 24)
            points = center + (length * [np.cos(angle), np.sin(angle)]).T
            cv2.fillPoly(mask, [points.round().astype(np.int32)], value)
    return masks.astype(bool)


@pytest.mark.parametrize('size', [(480, 640), (333, 501), (64, 1000)])
def test_polygons(size):
    masks = polygon_masks(50, *size)
    assert len({m.tobytes() for m in masks}) > 30
    assert encode_masks(masks) == reference(masks)


@pytest.mark.parametrize('dtype', [bool, np.uint8, np.int64, np.float32])
def test_any_type_and_layout(dtype):
    masks = polygon_masks(20, 50, 70)
    expected = reference(masks)
    typed = masks.astype(dtype)
    assert encode_masks(typed) == expected
    assert encode_masks(np.asfortranarray(typed)) == expected
    assert encode_masks(np.repeat(typed, 2, 2)[:, :, ::2]) == expected


def test_more_pixels_than_32_bits_count():
    [mask] = polygon_masks(1, 1100, 2000)
    masks = np.broadcast_to(mask, (1000, *mask.shape))
    assert masks.size > 2**31
    encodings = encode_masks(masks)
    assert encodings == len(masks) * reference([mask])


def test_metric_keeps_no_dense_mask(tmp_path):
    dataset = federated_dataset(0, 4, 10, with_masks=True)
    detections = perturbed(dataset, 0, with_masks=True)
    expected = [reference(d['masks']) for d in detections]
    dense = [weakref.ref(d['masks']) for d in detections]
    metric = FrequencyGroupMetric(
        write_json(tmp_path / 'val.json', dataset), 'segm'
    )
    metric.dataset_meta = {
        'classes': [c['name'] for c in dataset['categories']]
    }
    metric.set_class_statistics(statistics_of(dataset))
    metric.process({}, as_data_samples(dataset, detections))
    found = [prediction['masks'].tolist() for _, prediction in metric.results]
    assert found == expected
    assert all(masks() is not None for masks in dense)
    del detections
    assert all(masks() is None for masks in dense)

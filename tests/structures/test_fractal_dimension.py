"""The box-counting dimension: a loop over cells, and known figures."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import curve_fit

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.structures.fractal_dimension import (
    fractal_dimension,
    read_box_centers,
)


def naive(centers, max_grid):
    """Count cells one by one, and fit a line as the paper's code does."""
    n = len(centers)
    if n < 4:
        return 1.0
    grids, cells = [], []
    for G in range(1, max_grid + 1):
        if G * G > n:
            break
        number = 0
        for row in range(G):
            for column in range(G):
                number += any(
                    column / G <= x < (column + 1) / G
                    and row / G <= y < (row + 1) / G
                    for x, y in centers
                )
        grids.append(np.log(G))
        cells.append(np.log(number))
    (slope, _), _ = curve_fit(lambda x, D, a: D * x + a, grids, cells)
    return max(slope, 1.0)


@given(seed=st.integers(0, 2**16))
@settings(max_examples=15, deadline=None)
def test_it_is_the_naive_loop(seed):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(5), [0, 3, 4, 30, 130])
    centers = rng.uniform(0, 1, (len(labels), 2)) ** rng.uniform(0.5, 6)
    order = rng.permutation(len(labels))
    found = fractal_dimension(centers[order], labels[order], 5, max_grid=8)
    expected = [naive(centers[labels == c], 8) for c in range(5)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_known_figures():
    grid = (np.arange(64) + 0.5) / 64
    full = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2)
    line = np.stack([np.linspace(0, 0.999, 4096), np.full(4096, 0.3)], 1)
    point = np.full((4096, 2), 0.3)
    outside = np.full((10, 2), 1.0)
    labels = np.repeat(np.arange(5), [4096, 4096, 4096, 10, 0])
    found = fractal_dimension(
        np.concatenate([full, line, point, outside]), labels, 5
    )
    np.testing.assert_allclose(found, [2, 1, 1, 1, 1], rtol=1e-6)


def test_no_boxes():
    found = fractal_dimension(np.zeros((0, 2)), np.zeros(0, int), 3)
    assert found.tolist() == [1, 1, 1]


CONTENT = {
    'categories': [{'id': 7, 'name': 'a'}, {'id': 3, 'name': 'b'}],
    'images': [
        {'id': 'x', 'width': 100, 'height': 50},
        {'id': 'y', 'width': 10, 'height': 10},
    ],
    'annotations': [
        {'image_id': 'x', 'category_id': 3, 'bbox': [10, 10, 20, 30]},
        {'image_id': 'y', 'category_id': 7, 'bbox': [0, 5, 10, 5]},
        {'image_id': 'y', 'category_id': 9, 'bbox': [0, 0, 1, 1]},
    ],
}


def test_centers_are_relative_to_the_image():
    centers, labels = read_box_centers(CONTENT, [7, 3], 'train.json')
    np.testing.assert_allclose(centers, [[0.2, 0.5], [0.5, 0.75]])
    assert labels.tolist() == [1, 0]


def test_an_image_without_size_is_named():
    content = json.loads(json.dumps(CONTENT))
    del content['images'][1]['height']
    with pytest.raises(LongTailError, match="image y has no 'w"):
        read_box_centers(content, [7, 3], 'train.json')

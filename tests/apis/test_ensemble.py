"""Parts of the ensemble, called from Python."""

import naive
import numpy as np
import pytest

from mmdet_longtail.apis.ensemble import nms
from mmdet_longtail.evaluation.functional import Detections


def test_nms_is_greedy_per_class_and_image():
    rng = np.random.default_rng(0)
    n = 90
    corner, size = rng.uniform(0, 10, (n, 2)), rng.uniform(3, 8, (n, 2))
    boxes = np.hstack([corner, corner + size]).tolist()
    image, label = rng.integers(0, 2, (2, n))
    score = rng.integers(0, 20, n) / 20
    detections = Detections(image, label, score, np.hstack([corner, size]))
    kept = []
    for row in sorted(range(n), key=lambda row: -score[row]):
        if all(
            (image[k], label[k]) != (image[row], label[row])
            or naive.box_iou(boxes[row], boxes[k]) <= 0.4
            for k in kept
        ):
            kept.append(row)
    assert 4 < len(kept) < n
    expected = detections.take(np.sort(kept))
    np.testing.assert_array_equal(nms(detections, 0.4).box, expected.box)


def test_nms_of_nothing():
    none = np.zeros(0, np.int64)
    detections = Detections(none, none, none, np.zeros((0, 4)))
    assert len(nms(detections, 0.5)) == 0


@pytest.mark.parametrize(
    ('image', 'label', 'expected'),
    [
        # Neighbors in the order of NMS are of one class, not of one image.
        ([0, 1, 2], [4, 4, 4], [0, 1, 2]),
        ([0, 0, 1, 1], [4, 4, 4, 4], [1, 3]),
        ([1, 0, 1, 0], [0, 0, 0, 0], [2, 3]),
        # Neighbors are of one image, not of one class.
        ([3, 3, 3], [0, 1, 2], [0, 1, 2]),
        # The class and the image change together.
        ([0, 0, 1, 1], [1, 1, 0, 0], [1, 3]),
    ],
)
def test_equal_boxes_of_other_images_and_classes_stay(image, label, expected):
    score = np.linspace(0.1, 0.9, len(image))
    box = np.tile([5.0, 5.0, 20.0, 20.0], (len(image), 1))
    found = Detections(np.array(image), np.array(label), score, box)
    kept = nms(found, 0.5)
    assert kept.image.tolist() == [image[row] for row in expected]
    assert kept.label.tolist() == [label[row] for row in expected]
    assert kept.score.tolist() == score[expected].tolist()

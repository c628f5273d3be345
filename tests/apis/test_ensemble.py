"""apis/ensemble.py: NMS per image and class."""

import numpy as np
import pytest

from mmdet_longtail.apis.ensemble import nms
from mmdet_longtail.evaluation.functional import Detections


def detections(image, label, score):
    """Detections that all have the same box."""
    box = np.tile([5.0, 5.0, 20.0, 20.0], (len(image), 1))
    return Detections(*map(np.array, (image, label)), np.array(score), box)


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
def test_boxes_of_other_images_and_classes_stay(image, label, expected):
    found = detections(image, label, np.linspace(0.1, 0.9, len(image)))
    kept = nms(found, 0.5)
    assert kept.image.tolist() == [image[row] for row in expected]
    assert kept.label.tolist() == [label[row] for row in expected]
    assert kept.score.tolist() == found.score[expected].tolist()


def test_the_first_of_equal_scores_stays():
    found = detections([0, 0, 0], [1, 1, 1], [0.5, 0.5, 0.4])
    found.box[0] += 1
    assert nms(found, 0.5).box.tolist() == [[6, 6, 21, 21]]

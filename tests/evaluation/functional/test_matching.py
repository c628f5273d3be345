"""Labels of overlapping detections and objects, against loops."""

from dataclasses import replace

import numpy as np
import pytest
from detection_sets import (
    coco_dataset,
    federated_dataset,
    make_spec,
    perturbed,
)

from mmdet_longtail.evaluation.functional import (
    BACKGROUND,
    IGNORED,
    is_classification_error,
    predicted_labels,
)


def overlap(a, b):
    """IoU of two boxes x, y, width, height."""
    w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    both = max(w, 0) * max(h, 0)
    return both / (a[2] * a[3] + b[2] * b[3] - both)


@pytest.mark.parametrize('make', [federated_dataset, coco_dataset])
def test_predicted_labels_equal_a_loop(tmp_path, make):
    dataset = make(13, num_images=8, num_classes=15)
    detections = perturbed(dataset, 13)
    spec = make_spec(tmp_path, dataset, detections)
    ground_truth, found = spec.ground_truth, spec.detections
    expected = []
    for k, annotation in enumerate(ground_truth.annotations):
        if annotation.get('iscrowd'):
            expected.append(IGNORED)
            continue
        best, label = -1.0, BACKGROUND
        for row in range(len(found)):
            if found.image[row] != ground_truth.image[k]:
                continue
            if overlap(annotation['bbox'], found.box[row]) < 0.5:
                continue
            if found.score[row] > best:
                best, label = found.score[row], found.label[row]
        expected.append(label)
    predicted = predicted_labels(spec)
    assert predicted.tolist() == expected
    assert {BACKGROUND} < set(expected)


def test_classification_errors_equal_a_loop(tmp_path):
    dataset = federated_dataset(20, num_images=8, num_classes=15)
    spec = make_spec(tmp_path, dataset, perturbed(dataset, 20))
    truth, found = spec.ground_truth, spec.detections
    expected = []
    for row in range(len(found)):
        best, label = 0.0, None
        for k, annotation in enumerate(truth.annotations):
            if truth.image[k] != found.image[row]:
                continue
            iou = overlap(annotation['bbox'], found.box[row])
            if iou > best:
                best, label = iou, truth.label[k]
        expected.append(best >= 0.5 and label != found.label[row])
    wrong = is_classification_error(spec)
    assert wrong.tolist() == expected
    assert 0 < wrong.sum() < len(found)
    nothing = found.take(np.zeros(0, np.int64))
    nothing = replace(spec, detections=nothing)
    assert is_classification_error(nothing).shape == (0,)


def test_masks_are_labelled_like_boxes(tmp_path):
    dataset = federated_dataset(14, 8, 15, with_masks=True)
    detections = perturbed(dataset, 14)
    for detection in detections:  # a mask that fills the annotated box
        image = detection['image']
        shape = (len(detection['bboxes']), image['height'], image['width'])
        detection['masks'] = np.zeros(shape, bool)
        detection['bboxes'] = np.round(detection['bboxes']).clip(0, 160)
        for mask, (x1, y1, x2, y2) in zip(
            detection['masks'], detection['bboxes'].astype(int)
        ):
            mask[y1:y2, x1:x2] = True
    boxes = make_spec(tmp_path, dataset, detections)
    masks = make_spec(tmp_path, dataset, detections, 'segm')
    by_box = predicted_labels(boxes)
    assert (predicted_labels(masks) == by_box).all()

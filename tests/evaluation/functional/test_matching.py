"""Matches of detections and objects, against loops."""

import itertools
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from detection_sets import (
    as_results,
    coco_dataset,
    federated_dataset,
    make_spec,
    perturbed,
    write_json,
)

from mmdet_longtail.evaluation.functional import (
    BACKGROUND,
    IGNORED,
    Detections,
    EvaluationSpec,
    GroundTruth,
    is_classification_error,
    match_detections,
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


@pytest.mark.parametrize(
    'rules, mark', [('lvis', 'ignore'), ('coco', 'iscrowd')]
)
def test_each_rule_ignores_its_own_mark(tmp_path, rules, mark):
    dataset = federated_dataset(13, num_images=8, num_classes=15)
    marks = itertools.product((0, 1), (0, 1, None))
    for annotation in dataset['annotations']:
        annotation.pop('ignore', None)
    for annotation, values in zip(dataset['annotations'], marks):
        annotation.update(zip(('iscrowd', 'ignore'), values))
    spec = make_spec(tmp_path, dataset, perturbed(dataset, 13))
    truth = GroundTruth(dataset, 'test', rules)
    spec = replace(spec, ground_truth=truth)
    is_ignored = [bool(a.get(mark)) for a in truth.annotations]
    assert 2 <= sum(is_ignored) <= 3
    assert (predicted_labels(spec) == IGNORED).tolist() == is_ignored


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


# -- within each class ------------------------------------------------------


def naive_overlap(a, b, is_crowd):
    """Overlap of two boxes x, y, width, height, or of two masks."""
    if isinstance(a, np.ndarray):
        shared, first, second = (a & b).sum(), a.sum(), b.sum()
    else:
        width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
        height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
        shared = max(width, 0) * max(height, 0)
        first, second = a[2] * a[3], b[2] * b[3]
    together = first if is_crowd else first + second - shared
    return shared / together if together else 0


def naive_matches(dataset, found, iou_threshold, image):
    """Match the detections and objects of one image.

    Args:
        dataset: Annotations with a 'shape', a box or a mask.
        found: Detections with the same.

    Returns two lists, of 'true', 'false' or None for each detection, and of
    'found', 'missed' or None for each object.
    """
    is_lvis = 'neg_category_ids' in image
    rank = sorted(range(len(found)), key=lambda i: -found[i]['score'])
    if is_lvis:  # It leaves out empty masks.
        rank = [i for i in rank[:300] if np.any(found[i]['shape'])]
    objects = [
        a for a in dataset['annotations'] if a['image_id'] == image['id']
    ]
    verdict = [None] * len(found)
    fate = [None] * len(objects)
    for category in dataset['categories']:
        id = category['id']
        own = [j for j, a in enumerate(objects) if a['category_id'] == id]
        if is_lvis and not own and id not in image['neg_category_ids']:
            continue
        chosen = [i for i in rank if found[i]['category_id'] == id][:100]
        if is_lvis:
            chosen = [i for i in rank if found[i]['category_id'] == id]
        crowds = [j for j in own if not is_lvis and objects[j].get('iscrowd')]
        plain = [j for j in own if j not in crowds]
        for j in plain:
            fate[j] = 'missed'
        for i in chosen:
            best, taken = iou_threshold, None
            for j in plain:
                overlap = naive_overlap(
                    found[i]['shape'], objects[j]['shape'], False
                )
                if fate[j] == 'missed' and overlap >= best:
                    best, taken = overlap, j
            if taken is not None:
                verdict[i], fate[taken] = 'true', 'found'
            elif any(
                naive_overlap(found[i]['shape'], objects[j]['shape'], True)
                >= iou_threshold
                for j in crowds
            ):
                verdict[i] = None
            elif is_lvis and id in image['not_exhaustive_category_ids']:
                verdict[i] = None
            else:
                verdict[i] = 'false'
    return verdict, fate


def as_mask(annotation):
    x, y, w, h = annotation['bbox']
    mask = np.zeros((160, 160), bool)
    mask[y : y + h, x : x + w] = True
    return mask


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
@pytest.mark.parametrize('iou_threshold', [0.5, 0.75])
@pytest.mark.parametrize('make', [federated_dataset, coco_dataset])
def test_matches_equal_a_naive_loop(tmp_path, make, iou_threshold, iou_type):
    dataset = make(5, num_images=6, num_classes=12, with_masks=True)
    found = perturbed(dataset, 5, with_masks=True)
    results = as_results(found, iou_type)
    shapes = [m for d in found for m in d['masks']]
    for i, result in enumerate(results):
        result['shape'] = result.get('bbox', shapes[i])
    for a in dataset['annotations']:
        a['shape'] = a['bbox'] if iou_type == 'bbox' else as_mask(a)
    plain = dict(
        dataset,
        annotations=[
            {k: v for k, v in a.items() if k != 'shape'}
            for a in dataset['annotations']
        ],
    )
    ground_truth = GroundTruth.load(
        write_json(tmp_path / 'val.json', plain), (iou_type,)
    )
    images = [4, 0, 5]
    detections = Detections.from_results(
        results, ground_truth, iou_type, 'here'
    )
    matches = match_detections(
        EvaluationSpec(ground_truth, detections), [iou_threshold], images
    )
    seen = set()
    for i, image in enumerate(ground_truth.images):
        of_image = [r for r in results if r['image_id'] == image['id']]
        verdict, fate = naive_matches(dataset, of_image, iou_threshold, image)
        rows = np.flatnonzero(detections.image == i)
        objects = np.flatnonzero(ground_truth.image == i)
        if i not in images:
            assert not matches.is_true[rows].any()
            assert not matches.is_false[rows].any()
            assert not matches.is_found[objects].any()
            assert not matches.is_missed[objects].any()
            continue
        expected = defaultdict(list)
        for result, v in zip(of_image, verdict, strict=True):
            expected[v].append((result['score'], result['category_id']))
        ids = [c['id'] for c in ground_truth.categories]
        for name, chosen in (
            ('true', matches.is_true),
            ('false', matches.is_false),
        ):
            kept = rows[chosen[rows, 0]]
            score = detections.score[kept].tolist()
            label = detections.label[kept].tolist()
            ours = [(s, ids[c]) for s, c in zip(score, label, strict=True)]
            assert sorted(ours) == sorted(expected[name])
        for name, chosen in (
            ('found', matches.is_found),
            ('missed', matches.is_missed),
        ):
            assert [f == name for f in fate] == chosen[objects, 0].tolist()
        seen |= {*verdict, *fate}
    assert seen == {'true', 'false', 'found', 'missed', None}

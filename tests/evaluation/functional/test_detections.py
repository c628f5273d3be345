import numpy as np
import pytest
from detection_sets import (
    federated_dataset,
    make_spec,
    perturbed,
)
from hypothesis import given
from hypothesis import strategies as st

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.evaluation.functional import Detections
from mmdet_longtail.evaluation.functional.detections import best_rows


@given(
    group=st.lists(st.integers(0, 3), max_size=30),
    limit=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_best_rows(group, limit, seed):
    score = np.random.default_rng(seed).integers(0, 5, len(group)) / 4
    kept = []
    for row, (g, s) in enumerate(zip(group, score)):
        better = 0
        for other, (h, t) in enumerate(zip(group, score)):
            if h == g and (t > s or (t == s and other < row)):
                better += 1
        if better < limit:
            kept.append(row)
    found = best_rows(np.array(group, np.int64), score, limit)
    assert found.tolist() == kept


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda r: r[2].update(image_id=-3), 'has image_id -3'),
        (lambda r: r[2].update(category_id='cat'), "has category_id 'cat'"),
        (lambda r: r[2].update(score=float('nan')), '1 scores are NaN'),
        (
            lambda r: r[2].update(image_id=str(r[2]['image_id'])),
            'differ in their type',
        ),
        (
            lambda r: r[2].update(category_id=f'{r[2]["category_id"]}'),
            'differ in their type',
        ),
        (lambda r: r[2].update(score='high'), "has the score 'high'"),
        (lambda r: r[2].update(score='0.5'), "has the score '0.5'"),
        (lambda r: r[2].update(score=None), 'has the score None'),
        (lambda r: r[2].update(score=[0.5]), r'has the score \[0.5\]'),
        (lambda r: [x.update(score=[0.5]) for x in r], 'has the score'),
        (lambda r: [x.update(score=True) for x in r], 'has the score True'),
        (lambda r: r[2].update(score=10**400), 'expected a finite number'),
        (lambda r: r[2].update(bbox=[1, 2]), r'has the bbox \[1, 2\]'),
        (lambda r: r[2].update(bbox=None), 'has the bbox None'),
        (lambda r: r[2].update(bbox=['1', 2, 3, 4]), 'has the bbox'),
        (lambda r: r[2].update(bbox=[1, 2, 3, None]), 'has the bbox'),
        (lambda r: [x.update(bbox='1234') for x in r], 'has the bbox'),
        (lambda r: r[2].pop('bbox'), "detection 2 has no 'bbox'"),
        (lambda r: r.append(7), "has no 'image_id'"),
    ],
)
def test_bad_results(tmp_path, change, message):
    dataset = federated_dataset(16, num_images=4, num_classes=10)
    spec = make_spec(tmp_path, dataset, perturbed(dataset, 16))
    ground_truth = spec.ground_truth
    results = spec.detections.as_results(ground_truth)
    change(results)
    with pytest.raises(LongTailError, match=message) as error:
        Detections.from_results(results, ground_truth, 'bbox', 'res.json')
    text = str(error.value)
    assert text.startswith('res.json: ') and '\n' not in text


def test_masks_of_another_size(tmp_path):
    dataset = federated_dataset(17, 4, 10, with_masks=True)
    detections = perturbed(dataset, 17, with_masks=True)
    for detection in detections:
        detection['masks'] = detection['masks'][:, 1:]
    with pytest.raises(LongTailError, match='has the size \\[159, 160\\]'):
        make_spec(tmp_path, dataset, detections, 'segm')


@pytest.mark.parametrize(
    'mask',
    [
        None,
        [[1, 2, 3, 4, 5, 6]],
        {'counts': 'd0'},
        {'size': [160, 160]},
        {'size': [160, 160], 'counts': [25600]},
        {'size': [160, 160], 'counts': 'd'},
        {'size': [-160, 160], 'counts': 'd0'},
        {'size': [160, 160, 1], 'counts': 'd0'},
    ],
)
def test_a_mask_that_is_no_encoding(tmp_path, mask):
    dataset = federated_dataset(17, 4, 10, with_masks=True)
    detections = perturbed(dataset, 17, with_masks=True)
    spec = make_spec(tmp_path, dataset, detections, 'segm')
    results = spec.detections.as_results(spec.ground_truth)
    results[2]['segmentation'] = mask
    image = results[2]['image_id']
    with pytest.raises(LongTailError, match='not a compressed') as error:
        Detections.from_results(results, spec.ground_truth, 'segm', 'r.json')
    assert f'in image {image!r} is not' in str(error.value)
    assert '\n' not in str(error.value)


def test_results_that_are_no_list(tmp_path):
    dataset = federated_dataset(18, num_images=4, num_classes=10)
    ground_truth = make_spec(tmp_path, dataset, []).ground_truth
    with pytest.raises(LongTailError, match='expected a list'):
        Detections.from_results({'a': 1}, ground_truth, 'bbox', 'res.json')

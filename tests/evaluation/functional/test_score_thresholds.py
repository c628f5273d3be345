"""Score thresholds of the best F1, against loops over all thresholds."""

import json
from dataclasses import replace

import numpy as np
import pytest
from detection_sets import (
    coco_dataset,
    federated_dataset,
    make_spec,
    perturbed,
)
from hypothesis import given
from hypothesis import strategies as st

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.evaluation.functional import match_detections
from mmdet_longtail.evaluation.functional.score_thresholds import (
    ScoreThresholds,
    best_f1,
    f1_per_class,
)


def naive_f1(rows, num_objects, threshold):
    """F1 of the rows (score, is true) of at least a threshold."""
    shown = [is_true for score, is_true in rows if score >= threshold]
    precision = sum(shown) / len(shown) if shown else 0.0
    recall = sum(shown) / max(num_objects, 1)
    both = precision + recall
    return 2 * precision * recall / both if both else 0.0


@given(
    rows=st.lists(
        st.tuples(st.sampled_from([0.0, 0.1, 0.5, 0.7, 1.0]), st.booleans()),
        min_size=1,
        max_size=12,
    ),
    num_missed=st.integers(0, 5),
)
def test_best_f1_equals_a_loop(rows, num_missed):
    num_objects = sum(is_true for _, is_true in rows) + num_missed
    if num_objects == 0:
        return
    found = {t: naive_f1(rows, num_objects, t) for t, _ in rows}
    score, is_true = map(np.array, zip(*rows))
    threshold, f1 = best_f1(score, is_true, num_objects)
    assert f1 == pytest.approx(max(found.values()))
    assert found[threshold] == pytest.approx(f1)
    assert not any(
        t > threshold and value > f1 - 1e-9 for t, value in found.items()
    )


def test_no_detection_has_no_f1():
    assert best_f1(np.zeros(0), np.zeros(0, bool), 3) == (1.0, 0.0)


def matches_of(tmp_path, make=coco_dataset, seed=3):
    dataset = make(seed, num_images=12, num_classes=15)
    spec = make_spec(tmp_path, dataset, perturbed(dataset, seed))
    return match_detections(spec, [0.5])


def naive_rows(matches, classes):
    """Rows (score, is true) and the number of objects of some classes."""
    detections, truth = matches.spec.detections, matches.spec.ground_truth
    rows = [
        (detections.score[i], bool(matches.is_true[i, 0]))
        for i in range(len(detections))
        if detections.label[i] in classes
        and (matches.is_true[i, 0] or matches.is_false[i, 0])
    ]
    objects = [
        i
        for i in range(len(truth.annotations))
        if truth.label[i] in classes
        and (matches.is_found[i, 0] or matches.is_missed[i, 0])
    ]
    return rows, len(objects)


@pytest.mark.parametrize('make', [coco_dataset, federated_dataset])
def test_each_class_has_its_best_threshold(tmp_path, make):
    matches = matches_of(tmp_path, make)
    chosen = ScoreThresholds.choose(matches, min_objects=5)
    C = matches.spec.ground_truth.num_classes
    few = []
    for c in range(C):
        rows, num_objects = naive_rows(matches, [c])
        assert chosen.num_objects[c] == num_objects
        found = {t: naive_f1(rows, num_objects, t) for t, _ in rows}
        if num_objects < 5 or max(found.values(), default=0) == 0:
            few.append(c)
        else:
            best = max(found.values())
            assert found[chosen.threshold[c]] == pytest.approx(best)
        assert chosen.is_shared[c] == (c in few)
    assert 0 < len(few) < C
    rows, num_objects = naive_rows(matches, few)
    if not any(is_true for _, is_true in rows):
        rows, num_objects = naive_rows(matches, range(C))
    found = {t: naive_f1(rows, num_objects, t) for t, _ in rows}
    [shared] = set(chosen.threshold[few].tolist())
    assert found[shared] == pytest.approx(max(found.values()))


def test_classes_with_few_objects_share_a_threshold(tmp_path):
    matches = matches_of(tmp_path)
    chosen = ScoreThresholds.choose(matches, min_objects=10**6)
    assert chosen.is_shared.all()
    rows, num_objects = naive_rows(matches, range(15))
    found = {t: naive_f1(rows, num_objects, t) for t, _ in rows}
    [shared] = set(chosen.threshold.tolist())
    assert found[shared] == pytest.approx(max(found.values()))


def test_a_class_that_is_never_found_takes_the_threshold_of_all(tmp_path):
    matches = matches_of(tmp_path)
    detected = matches.spec.detections.label[:, None] == 3
    annotated = matches.spec.ground_truth.label[:, None] == 3
    assert (matches.is_true & detected).any()
    lost = replace(
        matches,
        is_true=matches.is_true & ~detected,
        is_false=matches.is_false | (matches.is_true & detected),
        is_found=matches.is_found & ~annotated,
        is_missed=matches.is_missed | (matches.is_found & annotated),
    )
    chosen = ScoreThresholds.choose(lost, min_objects=1)
    assert chosen.is_shared[3]
    rows, num_objects = naive_rows(lost, range(15))
    found = {t: naive_f1(rows, num_objects, t) for t, _ in rows}
    assert found[chosen.threshold[3]] == pytest.approx(max(found.values()))


def test_f1_per_class_equals_a_loop(tmp_path):
    matches = matches_of(tmp_path)
    threshold = np.linspace(0, 1, 15)
    found = f1_per_class(matches, threshold)
    for c, t in enumerate(threshold):
        rows, num_objects = naive_rows(matches, [c])
        expected = naive_f1(rows, num_objects, t) if num_objects else np.nan
        assert found[c] == pytest.approx(expected, nan_ok=True)


def test_nothing_is_found(tmp_path):
    dataset = coco_dataset(3, num_images=4, num_classes=15)
    spec = make_spec(tmp_path, dataset, perturbed(dataset, 3))
    nothing = spec.detections.take(np.zeros(0, int))
    spec = type(spec)(spec.ground_truth, nothing)
    with pytest.raises(LongTailError, match='is found, so no threshold'):
        ScoreThresholds.choose(match_detections(spec, [0.5]))


# -- files -------------------------------------------------------------------


def test_save_and_load(tmp_path):
    chosen = ScoreThresholds.choose(matches_of(tmp_path), min_objects=5)
    path = tmp_path / 'thresholds.json'
    chosen.save(path)
    loaded = ScoreThresholds.load(path)
    for key, value in vars(chosen).items():
        np.testing.assert_array_equal(getattr(loaded, key), value)
    names = chosen.class_names[::-1]
    np.testing.assert_array_equal(
        loaded.of_classes(names, ''), chosen.threshold[::-1]
    )
    with pytest.raises(LongTailError, match='no score threshold for x, y'):
        loaded.of_classes(('x', *names, 'y'), str(path))


@pytest.mark.parametrize(
    'change, words',
    [
        (lambda c: c.pop('classes'), 'not a record of this command'),
        (lambda c: c.update(version=9), 'format and version'),
        (lambda c: c['classes'].append(3), 'a class is 3'),
        (lambda c: c['classes'][0].pop('name'), 'expected an object with'),
        (lambda c: c['classes'][0].update(threshold=2), 'threshold is 2'),
    ],
)
def test_other_content_is_one_line(tmp_path, change, words):
    path = tmp_path / 'thresholds.json'
    ScoreThresholds.choose(matches_of(tmp_path)).save(path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(LongTailError, match=words) as error:
        ScoreThresholds.load(path)
    assert '\n' not in str(error.value)

"""The bootstrap over images, against sets with copies of their images."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from detection_sets import (
    as_results,
    coco_dataset,
    federated_dataset,
    perturbed,
    statistics_of,
)

from mmdet_longtail.evaluation.functional import (
    Detections,
    EvaluationSpec,
    GroundTruth,
    bootstrap_means,
    differences,
    evaluate,
    intervals,
    leaders,
    mean,
)
from mmdet_longtail.evaluation.functional.bootstrap import (
    interval,
    rank_matches,
    weighted_ap,
)
from mmdet_longtail.structures.class_statistics import pool

BIN_EDGES = (20, 200)


def loaded(dataset, results, iou_type='bbox'):
    for number, annotation in enumerate(dataset['annotations']):
        annotation['id'] = number + 1
    ground_truth = GroundTruth(dataset, 'val.json')
    found = Detections.from_results(results, ground_truth, iou_type, 'found')
    return EvaluationSpec(ground_truth, found)


def copied(dataset, results, counts):
    """The set with each image as often as it counts, under fresh ids."""
    images, annotations, copies = [], [], []
    by_id = sorted(dataset['images'], key=lambda image: image['id'])
    for image, count in zip(by_id, counts):
        for _ in range(count):
            id = len(images) + 1
            images.append(dict(image, id=id))
            for annotation in dataset['annotations']:
                if annotation['image_id'] == image['id']:
                    annotations.append(dict(annotation, image_id=id))
            for result in results:
                if result['image_id'] == image['id']:
                    copies.append(dict(result, image_id=id))
    copy = dict(dataset, images=images, annotations=annotations)
    return copy, copies


def naive_ap(dataset, results, counts, iou_type):
    """AP of each class on the copies, by lvis or pycocotools."""
    spec = loaded(*copied(dataset, results, counts), iou_type)
    return evaluate(replace(spec, back_end='reference')).class_ap['AP']


def some_evaluation(seed, make=federated_dataset, edges=None, **kwargs):
    dataset = make(seed, **kwargs)
    results = as_results(perturbed(dataset, seed), 'bbox')
    statistics = statistics_of(dataset)
    groups = (
        statistics.frequency_groups()
        if edges is None
        else statistics.bin_groups(edges, 'image_count')
    )
    return evaluate(loaded(dataset, results), groups)


# ------------------------------------------------------ weights and copies


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
@pytest.mark.parametrize('make', [federated_dataset, coco_dataset])
def test_a_weight_is_a_number_of_copies(make, iou_type):
    dataset = make(0, num_images=7, num_classes=20, with_masks=True)
    detections = perturbed(dataset, 0, with_masks=True)
    results = as_results(detections, iou_type)
    matches = rank_matches(loaded(dataset, results, iou_type))
    random = np.random.default_rng(1)
    for number in range(3):
        drawn = random.integers(0, 7, 7)
        counts = np.bincount(drawn, minlength=7) if number else np.ones(7, int)
        expected = naive_ap(dataset, results, counts, iou_type)
        found = weighted_ap(matches, counts)
        np.testing.assert_allclose(found, expected, atol=1e-9)
        assert (found > 0).any() and np.isnan(found).any()


def test_objects_to_be_ignored():
    dataset = federated_dataset(2, num_images=6, num_classes=15)
    for number, annotation in enumerate(dataset['annotations']):
        annotation['ignore'] = int(number % 3 == 0)
    results = as_results(perturbed(dataset, 2), 'bbox')
    matches = rank_matches(loaded(dataset, results))
    counts = np.array([2, 0, 1, 1, 1, 1])
    expected = naive_ap(dataset, results, counts, 'bbox')
    np.testing.assert_allclose(
        weighted_ap(matches, counts), expected, atol=1e-9
    )


@pytest.mark.parametrize('make', [federated_dataset, coco_dataset])
def test_limits_are_those_of_the_evaluation(make):
    dataset = make(3, num_images=5, num_classes=10)
    results = as_results(perturbed(dataset, 3), 'bbox')
    for limit in (1, 10, 2**31 - 1):
        spec = replace(loaded(dataset, results), max_detections=limit)
        evaluation = evaluate(spec)
        matches = rank_matches(evaluation.spec)
        np.testing.assert_allclose(
            weighted_ap(matches, np.ones(5)),
            evaluation.class_ap['AP'],
            atol=1e-9,
        )


@pytest.mark.parametrize('make', [federated_dataset, coco_dataset])
def test_extreme_weights_and_scores(make):
    dataset = make(4, num_images=5, num_classes=12)
    results = as_results(perturbed(dataset, 4), 'bbox')
    order = np.argsort([result['score'] for result in results])
    scores = [-1e308, -1.0, -1e-308, 0.0, 1e-308, 1.0, 1e308]
    for rank, place in enumerate(order):
        # Distinct, and at the ends of what a number can be.
        results[place]['score'] = (
            scores[rank] if rank < len(scores) else 2.0 ** (rank % 1000)
        )
    distinct = {r['score']: r for r in results}
    results = list(distinct.values())
    matches = rank_matches(loaded(dataset, results))
    assert np.isnan(weighted_ap(matches, np.zeros(5, int))).all()
    for image in range(5):
        counts = np.zeros(5, int)
        counts[image] = 1
        expected = naive_ap(dataset, results, counts, 'bbox')
        for scale in (1, 10**6):
            found = weighted_ap(matches, scale * counts)
            np.testing.assert_allclose(found, expected, atol=1e-9)


def test_nothing_found():
    dataset = federated_dataset(5, num_images=4, num_classes=10)
    spec = loaded(dataset, [])
    matches = rank_matches(spec)
    has_objects = np.bincount(spec.ground_truth.label, minlength=10) > 0
    ap = weighted_ap(matches, np.ones(4))
    assert (ap[has_objects] == 0).all()
    assert np.isnan(ap[~has_objects]).all() and not has_objects.all()
    [means] = bootstrap_means([evaluate(spec)], 20)
    assert means['AP'].tolist() == [0] * 20


# ------------------------------------------------------------------- means


def test_means_equal_a_loop():
    evaluation = some_evaluation(6, num_images=12, num_classes=30)
    groups = [*evaluation.groups, pool(evaluation.groups[:2])]
    evaluation = replace(evaluation, groups=groups)
    [means] = bootstrap_means([evaluation], 10, seed=3)
    assert list(means) == ['AP', 'APr', 'APc', 'APf', 'APr+c']
    matches = rank_matches(evaluation.spec)
    random = np.random.default_rng(3)
    for number in range(10):
        drawn = random.integers(0, 12, 12)
        counts = [int((drawn == image).sum()) for image in range(12)]
        ap = weighted_ap(matches, np.array(counts))
        assert means['AP'][number] == pytest.approx(mean(ap))
        for group in groups:
            values = [
                value
                for value, is_member in zip(ap, group.members)
                if is_member and not np.isnan(value)
            ]
            expected = sum(values) / len(values)
            assert means[group.key][number] == pytest.approx(expected)


def test_pooled_groups():
    statistics = statistics_of(federated_dataset(7))
    rare, common, frequent = statistics.frequency_groups()
    both = pool([rare, common])
    assert (both.key, both.name) == ('APr+c', 'rare+common')
    assert (both.members == ~frequent.members).all()


def test_a_group_without_objects_has_no_interval():
    edges = (10**6,)
    evaluation = some_evaluation(8, num_images=5, edges=edges)
    [means] = bootstrap_means([evaluation], 5)
    assert np.isnan(means['AP_from_1000000']).all()
    assert set(intervals(evaluation, means)) == {'AP', 'AP_below_1000000'}
    [difference] = differences([evaluation], [means])
    assert set(difference) == {'AP', 'AP_below_1000000'}


def test_memory_grows_with_boxes_not_with_images_times_classes():
    num_images, num_classes = 1000, 13_204
    image = np.arange(num_images)
    annotations = [
        dict(image_id=i, category_id=i, bbox=[0, 0, 9, 9], area=81, iscrowd=0)
        for i in image.tolist()
    ]
    dataset = dict(
        images=[dict(id=i) for i in image.tolist()],
        annotations=annotations,
        categories=[dict(id=k, name=f'{k}') for k in range(num_classes)],
    )
    box = np.full((num_images, 4), 9.0) - [9, 9, 0, 0]
    truth = GroundTruth(dataset, 'val.json')
    found = Detections(image, image, np.ones(num_images), box)
    tracemalloc.start()
    matches = rank_matches(EvaluationSpec(truth, found))
    ap = weighted_ap(matches, np.ones(num_images))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.nanmean(ap) == pytest.approx(1)
    assert np.isfinite(ap).sum() == num_images
    assert peak < num_images * num_classes


# --------------------------------------------------------------- intervals


def test_interval_is_of_moved_percentiles():
    draws = np.array([np.nan, *np.arange(101.0)]) / 100
    assert interval(0.5, draws, 0.9) == pytest.approx((0.05, 0.95))
    assert interval(0.45, draws, 0.9) == pytest.approx((0, 0.9))
    assert np.isnan(interval(0, np.full(3, np.nan))).all()
    assert interval(0.5, np.array([0.25])) == (0.5, 0.5)


@pytest.mark.parametrize('value', [0, 0.001, 0.999, 1])
def test_interval_of_ap_is_in_0_to_1(value):
    draws = np.linspace(0, 1, 200)
    low, high = interval(value, draws)
    assert 0 <= low <= value <= high <= 1
    low, high = interval(value - 1, draws - 1, bounds=(-1.0, 1.0))
    assert -1 <= low <= value - 1 <= high <= 1


def test_ap_of_no_class_has_no_interval():
    assert np.isnan(interval(-1, np.array([0.1, 0.2]))).all()


def test_the_seed_decides_the_draws():
    evaluation = some_evaluation(9, num_images=8, num_classes=12)
    [one], [same], [other] = (
        bootstrap_means([evaluation], 5, seed) for seed in (0, 0, 1)
    )
    assert (one['AP'] == same['AP']).all()
    assert (one['AP'] != other['AP']).all()


def test_intervals_cover_the_ap_of_other_images():
    """Nearly all of them hold the mean over many sets of that size."""
    num_images, size = 600, 60
    dataset = coco_dataset(10, num_images=num_images, num_classes=5)
    detections = perturbed(dataset, 10)
    # The first image has hundreds: no other is like it.
    results = as_results(detections[1:], 'bbox')
    matches = rank_matches(loaded(dataset, results))
    random = np.random.default_rng(0)

    def ap(images):
        counts = np.bincount(images, minlength=num_images)
        return np.nanmean(weighted_ap(matches, counts))

    samples = [
        random.choice(num_images, size, replace=False) for _ in range(150)
    ]
    truth = np.mean([ap(sample) for sample in samples])
    covered = []
    for sample in samples[:30]:
        draws = [ap(random.choice(sample, size)) for _ in range(40)]
        low, high = interval(ap(sample), np.array(draws))
        covered.append(low <= truth <= high)
        assert 0.02 < high - low < 0.2
    assert 26 <= sum(covered) < 30


# ------------------------------------------------------------- differences


def test_a_detector_differs_from_itself_by_nothing():
    evaluation = some_evaluation(11, num_images=8, num_classes=30)
    several = [evaluation, evaluation]
    means = bootstrap_means(several, 10)
    for of_means in differences(several, means):
        assert set(of_means) == {'AP', 'APr', 'APc', 'APf'}
        for difference in of_means.values():
            assert (difference.value, difference.low, difference.high) == (
                0,
                0,
                0,
            )
            assert not difference.is_clear


def test_a_small_gain_on_every_image_is_clear():
    """Each detector's own interval is much wider than their difference's."""
    dataset = coco_dataset(12, num_images=40, num_classes=6)
    results = as_results(perturbed(dataset, 12), 'bbox')
    spec = loaded(dataset, results)
    shift = np.array([2, 2, 0, 0])
    worse = replace(spec.detections, box=spec.detections.box + shift)
    groups = statistics_of(dataset).frequency_groups()
    several = [
        evaluate(s, groups) for s in (replace(spec, detections=worse), spec)
    ]
    means = bootstrap_means(several, 100)
    _, better = differences(several, means)
    low, high = intervals(several[1], means[1])['AP']
    difference = better['AP']
    assert difference.low <= difference.value <= difference.high
    assert difference.high - difference.low < high - low
    assert difference.is_clear and difference.low > 0
    back = differences(several[::-1], means[::-1])[1]['AP']
    assert back.value == pytest.approx(-difference.value)
    assert back.low == pytest.approx(-difference.high)


def test_leaders_differ_from_the_best_by_no_clear_difference():
    dataset = coco_dataset(12, num_images=40, num_classes=6)
    results = as_results(perturbed(dataset, 12), 'bbox')
    spec = loaded(dataset, results)
    worse = replace(
        spec.detections, box=spec.detections.box + np.array([2, 2, 0, 0])
    )
    several = [
        evaluate(s)
        for s in (replace(spec, detections=worse), spec, replace(spec))
    ]
    assert leaders(several, bootstrap_means(several, 50)) == {'AP': [1, 2]}
    several = several[:2]
    assert leaders(several, bootstrap_means(several, 50)) == {'AP': [1]}

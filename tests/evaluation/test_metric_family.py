"""Back ends, AP-Fixed, proposal recall, and where objects went."""

import copy
import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from test_metrics import (
    as_data_samples,
    as_results,
    coco_dataset,
    federated_dataset,
    lvis_val_100,
    perturbed,
    run,
    statistics_of,
    write_json,
)

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.evaluation.functional.back_ends import fast, reference
from mmdet_longtail.evaluation.functional.confusions import (
    BACKGROUND,
    NOT_COUNTED,
    on_another_class,
)
from mmdet_longtail.evaluation.functional.detections import best_rows
from mmdet_longtail.evaluation.metrics import (
    Detections,
    FixedAPMetric,
    FrequencyGroupMetric,
    GroundTruth,
    ProposalRecallMetric,
    evaluate,
    seen_as,
)
from mmdet_longtail.evaluation.metrics.fixed_ap_metric import UNLIMITED
from mmdet_longtail.testing.glyphs import GlyphSettings, make_glyphs

SHARED = Path(__file__).parents[3] / 'shared' / 'data'


def loaded(tmp_path, dataset, detections, iou_type='bbox', name='val.json'):
    """A ground truth and detections, as tools read them."""
    iou_types = ['bbox', 'segm'] if iou_type == 'segm' else ['bbox']
    path = write_json(tmp_path / name, dataset)
    ground_truth = GroundTruth.load(path, iou_types)
    results = as_results(detections, iou_type)
    for result in results:
        counts = result.get('segmentation', {}).get('counts')
        if counts is not None:
            result['segmentation']['counts'] = counts.decode()
    found = Detections.from_results(results, ground_truth, iou_type, 'test')
    return ground_truth, found


def assert_same_curves(ground_truth, detections, iou_type, limit):
    ours = fast(ground_truth, detections, iou_type, limit)
    theirs = reference(ground_truth, detections, iou_type, limit)
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
    data = loaded(tmp_path, dataset, detections, iou_type)
    curves = assert_same_curves(*data, iou_type, limit)
    assert (curves.precision > 0).any()


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_back_ends_agree_on_lvis(tmp_path, iou_type):
    _, dataset, _ = lvis_val_100()
    for seed in (0, 1):
        detections = perturbed(dataset, seed, with_masks=True)
        data = loaded(tmp_path, dataset, detections, iou_type)
        assert_same_curves(*data, iou_type, 300)


def test_back_ends_agree_on_glyphs(tmp_path):
    make_glyphs(tmp_path, GlyphSettings(20, 40, 64, 12.0), num_processes=1)
    annotations = tmp_path / 'annotations' / 'val.json'
    ground_truth = GroundTruth.load(str(annotations))
    detections = perturbed(ground_truth.dataset, 2)
    results = as_results(detections, 'bbox')
    found = Detections.from_results(results, ground_truth, 'bbox', 'test')
    assert_same_curves(ground_truth, found, 'bbox', 300)


def test_back_ends_agree_on_arithmetic_lt():
    path = SHARED / 'arithmetic_lt' / 'annotations' / 'arith_val.json'
    if not path.exists():
        pytest.skip('no ../shared/data')
    ground_truth = GroundTruth.load(str(path))
    detections = perturbed(ground_truth.dataset, 3)
    results = as_results(detections, 'bbox')
    found = Detections.from_results(results, ground_truth, 'bbox', 'test')
    assert_same_curves(ground_truth, found, 'bbox', 300)


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
    data = loaded(folder, dataset, perturbed(dataset, seed))
    assert_same_curves(*data, 'bbox', 300)


def test_back_ends_agree_on_equal_scores(tmp_path):
    """The order of the images decides, in both."""
    for dataset in (federated_dataset(4), coco_dataset(4)):
        detections = perturbed(dataset, 4)
        for detection in detections:
            detection['scores'] = np.round(detection['scores'] * 3) / 3
        ground_truth, found = loaded(tmp_path, dataset, detections)
        assert_same_curves(ground_truth, found, 'bbox', UNLIMITED)


def test_back_ends_agree_on_ignored_and_empty_objects(tmp_path):
    """lvis leaves out what has no area, and honours the mark `ignore`."""
    dataset = federated_dataset(5)
    for number, annotation in enumerate(dataset['annotations']):
        if number % 7 == 0:
            annotation['area'] = 0
    data = loaded(tmp_path, dataset, perturbed(dataset, 5))
    without_area = assert_same_curves(*data, 'bbox', 300)
    for number, annotation in enumerate(dataset['annotations']):
        annotation['ignore'] = int(number % 5 == 0)
    data = loaded(tmp_path, dataset, perturbed(dataset, 5))
    ignored = assert_same_curves(*data, 'bbox', 300)
    assert (ignored.precision != without_area.precision).any()


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_back_ends_agree_on_nothing_found(tmp_path, iou_type):
    for dataset in (
        federated_dataset(6, 5, 12, with_masks=True),
        coco_dataset(6, num_images=5, num_classes=12, with_masks=True),
    ):
        data = loaded(tmp_path, dataset, [], iou_type)
        curves = assert_same_curves(*data, iou_type, 300)
        assert curves.precision.max() == 0


def test_the_metric_takes_either_back_end(tmp_path):
    dataset = federated_dataset(7, num_images=10, num_classes=30)
    ann_file = write_json(tmp_path / 'val.json', dataset)
    arguments = dataset, perturbed(dataset, 7), statistics_of(dataset)
    metrics = [
        run(FrequencyGroupMetric(ann_file, back_end=name), *arguments)
        for name in ('fast', 'reference')
    ]
    assert metrics[0] == pytest.approx(metrics[1], abs=1e-9)


# ------------------------------------------------------------- best rows


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


# -------------------------------------------------------------- AP-Fixed


def naive_best_of_each_class(results, limit):
    kept = []
    for category_id in {r['category_id'] for r in results}:
        own = [r for r in results if r['category_id'] == category_id]
        own.sort(key=lambda r: -r['score'])
        kept += own[:limit]
    return kept


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
@pytest.mark.parametrize('limit', [1, 5, 10_000])
def test_fixed_ap_keeps_the_best_of_each_class(tmp_path, limit, iou_type):
    dataset = federated_dataset(8, 15, 12, with_masks=True)
    ann_file = write_json(tmp_path / 'val.json', dataset)
    detections = perturbed(dataset, 8, with_masks=True)
    ours = run(
        FixedAPMetric(
            ann_file=ann_file, metric=iou_type, detections_per_class=limit
        ),
        dataset,
        detections,
        statistics_of(dataset),
        batch=1,
    )
    iou_types = ['bbox', 'segm']
    ground_truth = GroundTruth.load(ann_file, iou_types)
    kept = naive_best_of_each_class(as_results(detections, iou_type), limit)
    found = Detections.from_results(kept, ground_truth, iou_type, 'test')
    expected = evaluate(
        ground_truth, found, iou_type, (), UNLIMITED, 'reference'
    ).metrics()
    for name in ('AP', 'AP50', 'AP75', 'APs', 'APm', 'APl'):
        value = ours[f'fixed_ap/{iou_type}_{name}']
        assert value == pytest.approx(expected[name], abs=1e-9)
    assert ours[f'fixed_ap/{iou_type}_AP'] > 0


def test_fixed_ap_holds_no_more_than_it_needs(tmp_path):
    dataset = federated_dataset(9, num_images=40, num_classes=6)
    ann_file = write_json(tmp_path / 'val.json', dataset)
    metric = FixedAPMetric(ann_file=ann_file, detections_per_class=2)
    metric.set_class_statistics(statistics_of(dataset))
    samples = as_data_samples(dataset, perturbed(dataset, 9))
    for sample in samples[1:]:
        metric.process({}, [sample])
    held = sum(len(p['labels']) for _, p in metric.results)
    assert held < 100
    assert len(metric.results) == len(samples) - 1


def test_fixed_ap_has_no_limit_an_image(tmp_path):
    dataset = federated_dataset(10, num_images=10, num_classes=30)
    ann_file = write_json(tmp_path / 'val.json', dataset)
    arguments = dataset, perturbed(dataset, 10), statistics_of(dataset)
    limited = run(FrequencyGroupMetric(ann_file), *arguments)
    fixed = run(FixedAPMetric(ann_file=ann_file), *arguments)
    name = 'bbox_AP_classes'
    assert fixed[f'fixed_ap/{name}'] == limited[f'frequency_group/{name}']
    assert fixed['fixed_ap/bbox_AP'] != limited['frequency_group/bbox_AP']


# -------------------------------------------------------- proposal recall


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
@pytest.mark.parametrize('make', [federated_dataset, coco_dataset])
def test_proposal_recall_equals_pycocotools(tmp_path, make, iou_type):
    dataset = make(11, num_images=10, num_classes=30, with_masks=True)
    for annotation in dataset['annotations']:
        annotation.setdefault('iscrowd', 0)
    ann_file = write_json(tmp_path / 'val.json', dataset)
    detections = perturbed(dataset, 11, with_masks=True)
    statistics = statistics_of(dataset)
    ours = run(
        ProposalRecallMetric(
            ann_file=ann_file, metric=iou_type, proposals=(1, 5, 1000)
        ),
        dataset,
        detections,
        statistics,
    )
    truth = COCO(ann_file)
    found = truth.loadRes(copy.deepcopy(as_results(detections, iou_type)))
    evaluation = COCOeval(truth, found, iou_type)
    evaluation.params.useCats = 0
    evaluation.params.maxDets = [1, 5, 1000]
    evaluation.evaluate()
    evaluation.accumulate()
    recall = evaluation.eval['recall'][:, 0]  # (T, A, M)
    key = f'proposal_recall/{iou_type}_'
    for m, limit in enumerate((1, 5, 1000)):
        assert ours[f'{key}AR@{limit}'] == pytest.approx(
            recall[:, 0, m].mean(), abs=1e-9
        )
    for a, size in enumerate('sml', 1):
        expected = recall[:, a, 2].mean()
        assert ours[f'{key}AR{size}@1000'] == pytest.approx(expected, abs=1e-9)
    groups = [ours[f'{key}AR{letter}@1000'] for letter in 'rcf']
    assert min(groups) <= ours[f'{key}AR@1000'] <= max(groups)


def test_proposals_need_no_classes(tmp_path):
    dataset = federated_dataset(12, num_images=5, num_classes=12)
    ann_file = write_json(tmp_path / 'val.json', dataset)
    detections = perturbed(dataset, 12)
    results = []
    for first in (True, False):
        if not first:
            for detection in detections:
                ids = detection['category_ids']
                ids[:] = dataset['categories'][0]['id']
        metric = ProposalRecallMetric(ann_file=ann_file)
        results.append(
            run(metric, dataset, detections, statistics_of(dataset))
        )
    assert results[0] == results[1]
    assert results[0]['proposal_recall/bbox_AR@1000'] > 0.3


# ------------------------------------------------------ where objects went


def overlap(a, b):
    """IoU of two boxes x, y, width, height."""
    w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    both = max(w, 0) * max(h, 0)
    return both / (a[2] * a[3] + b[2] * b[3] - both)


@pytest.mark.parametrize('make', [federated_dataset, coco_dataset])
def test_seen_as_equals_a_loop(tmp_path, make):
    dataset = make(13, num_images=8, num_classes=15)
    detections = perturbed(dataset, 13)
    ground_truth, found = loaded(tmp_path, dataset, detections)
    expected = []
    for k, annotation in enumerate(ground_truth.annotations):
        if annotation.get('iscrowd'):
            expected.append(NOT_COUNTED)
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
    taken_for = seen_as(ground_truth, found, 'bbox')
    assert taken_for.tolist() == expected
    assert {BACKGROUND} < set(expected)


def test_on_another_class_equals_a_loop(tmp_path):
    dataset = federated_dataset(20, num_images=8, num_classes=15)
    truth, found = loaded(tmp_path, dataset, perturbed(dataset, 20))
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
    wrong = on_another_class(truth, found, 'bbox')
    assert wrong.tolist() == expected
    assert 0 < wrong.sum() < len(found)
    nothing = found.take(np.zeros(0, np.int64))
    assert on_another_class(truth, nothing, 'bbox').shape == (0,)


def test_masks_are_seen_as_boxes_are(tmp_path):
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
    truth, boxes = loaded(tmp_path, dataset, detections)
    _, masks = loaded(tmp_path, dataset, detections, 'segm')
    truth = GroundTruth.load(truth.source, ['segm'])
    by_box = seen_as(truth, boxes, 'bbox')
    assert (seen_as(truth, masks, 'segm') == by_box).all()


def test_the_table_of_classes_adds_up(tmp_path):
    dataset = federated_dataset(15, num_images=20, num_classes=30)
    ann_file = write_json(tmp_path / 'val.json', dataset)
    path = tmp_path / 'classes.csv'
    metric = FrequencyGroupMetric(ann_file, per_class_file=str(path))
    ours = run(metric, dataset, perturbed(dataset, 15), statistics_of(dataset))
    with open(path, newline='') as file:
        rows = list(csv.DictReader(file))
    total = dict.fromkeys(
        ('ground_truths', 'found', 'confused', 'background'), 0
    )
    for row in rows:
        for key in total:
            total[key] += int(row[f'bbox_{key}'])
        others = row['bbox_confused_with'].split('; ')
        numbers = [int(o.rpartition(' ')[2]) for o in others if o]
        assert sum(numbers) <= int(row['bbox_confused'])
        assert len(numbers) <= 3
        assert numbers == sorted(numbers, reverse=True)
        assert row['name'] not in [o.rpartition(' ')[0] for o in others]
    assert total['ground_truths'] == len(dataset['annotations'])
    parts = total['found'] + total['confused'] + total['background']
    assert parts == total['ground_truths']
    assert min(total.values()) > 0
    ap = [float(row['bbox_AP']) for row in rows if row['bbox_AP']]
    expected = ours['frequency_group/bbox_AP']
    assert np.mean(ap) == pytest.approx(expected, abs=1e-12)
    recall = [float(r['bbox_recall']) for r in rows if r['bbox_recall']]
    assert 0 < min(recall) <= max(recall) == 1


# --------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda r: r[2].update(image_id=-3), 'has image_id -3'),
        (lambda r: r[2].update(category_id='cat'), "has category_id 'cat'"),
        (lambda r: r[2].update(score=float('nan')), '1 scores are NaN'),
        (lambda r: r[2].update(score='high'), 'each score to be a number'),
        (lambda r: r[2].update(bbox=[1, 2]), 'each bbox four'),
        (lambda r: r[2].pop('bbox'), "detection 2 has no 'bbox'"),
        (lambda r: r.append(7), "has no 'image_id'"),
    ],
)
def test_bad_results(tmp_path, change, message):
    dataset = federated_dataset(16, num_images=4, num_classes=10)
    ground_truth, found = loaded(tmp_path, dataset, perturbed(dataset, 16))
    results = found.as_results(ground_truth, 'bbox')
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
        loaded(tmp_path, dataset, detections, 'segm')


def test_results_that_are_no_list(tmp_path):
    dataset = federated_dataset(18, num_images=4, num_classes=10)
    ground_truth, _ = loaded(tmp_path, dataset, [])
    with pytest.raises(LongTailError, match='expected a list'):
        Detections.from_results({'a': 1}, ground_truth, 'bbox', 'res.json')


@pytest.mark.parametrize(
    ('build', 'message'),
    [
        (lambda: FixedAPMetric(detections_per_class=0), 'at least 1'),
        (lambda: ProposalRecallMetric(proposals=()), 'proposals is ()'),
        (lambda: ProposalRecallMetric(proposals=(0,)), 'proposals is (0,)'),
        (lambda: FixedAPMetric(metric='boxes'), "metric is 'boxes'"),
        (lambda: FrequencyGroupMetric(back_end='gpu'), "back_end is 'gpu'"),
    ],
)
def test_bad_arguments(build, message):
    with pytest.raises(LongTailError) as error:
        build()
    assert message in str(error.value)
    assert '\n' not in str(error.value)


def test_a_score_that_is_no_number(tmp_path):
    dataset = federated_dataset(19, num_images=4, num_classes=10)
    detections = perturbed(dataset, 19)
    detections[1]['scores'][0] = np.nan
    metric = FrequencyGroupMetric(write_json(tmp_path / 'val.json', dataset))
    with pytest.raises(LongTailError, match='scores are NaN'):
        run(metric, dataset, detections, statistics_of(dataset))

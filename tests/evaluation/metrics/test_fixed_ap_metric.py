import pytest
from detection_sets import (
    as_data_samples,
    as_results,
    federated_dataset,
    perturbed,
    run,
    statistics_of,
    write_json,
)

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.evaluation.functional import (
    UNLIMITED,
    Detections,
    EvaluationSpec,
    GroundTruth,
    evaluate,
)
from mmdet_longtail.evaluation.metrics import (
    FixedAPMetric,
    FrequencyGroupMetric,
)


def naive_best_per_class(results, limit):
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
    kept = naive_best_per_class(as_results(detections, iou_type), limit)
    found = Detections.from_results(kept, ground_truth, iou_type, 'test')
    spec = EvaluationSpec(ground_truth, found, UNLIMITED, 'reference')
    expected = evaluate(spec).metrics()
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


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'detections_per_class': 0}, 'detections_per_class is 0'),
        ({'metric': 'boxes'}, "metric is 'boxes'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(LongTailError, match=f'FixedAPMetric: {message}'):
        FixedAPMetric(**arguments)

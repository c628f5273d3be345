import copy
import csv
import json
from pathlib import Path

import numpy as np
import pytest
from detection_sets import (
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
from hypothesis import given, settings
from hypothesis import strategies as st
from lvis import LVIS, LVISEval, LVISResults
from mmdet.registry import METRICS
from mmengine.config import Config
from mmengine.runner import Runner
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tiny import make_data, write_config

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
from mmdet_longtail.structures.class_statistics import ClassStatistics

ROOT = Path(__file__).parents[3]
STANDARD = ['AP', 'AP50', 'AP75', 'APs', 'APm', 'APl', 'APr', 'APc', 'APf']


def class_ap(metric, iou_type='bbox'):
    return metric.evaluations[iou_type].class_ap['AP']


def lvis_results(ann_file, detections, iou_type):
    results = as_results(detections, iou_type)
    evaluation = LVISEval(ann_file, LVISResults(ann_file, results), iou_type)
    evaluation.run()
    return evaluation.get_results()


# ------------------------------------------------- equal to the references


def test_equals_lviseval_on_lvis():
    ann_file, dataset, statistics = lvis_val_100()
    detections = perturbed(dataset, 0, with_masks=True)
    metric = FrequencyGroupMetric(ann_file, metric=['bbox', 'segm'])
    ours = run(metric, dataset, detections, statistics)
    for iou_type in ('bbox', 'segm'):
        reference = lvis_results(ann_file, detections, iou_type)
        for name in STANDARD:
            value = ours[f'frequency_group/{iou_type}_{name}']
            assert value == pytest.approx(reference[name], abs=1e-9)
            assert 0 < value < 1
        assert ours[f'frequency_group/{iou_type}_APr_classes'] == 1
        assert ours[f'frequency_group/{iou_type}_AP_classes'] == 190


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_equals_lviseval_on_a_generated_set(tmp_path, iou_type):
    dataset = federated_dataset(3, with_masks=True)
    ann_file = write_json(tmp_path / 'val.json', dataset)
    detections = perturbed(dataset, 3, with_masks=True)
    metric = FrequencyGroupMetric(ann_file, metric=iou_type)
    ours = run(metric, dataset, detections, statistics_of(dataset))
    reference = lvis_results(ann_file, detections, iou_type)
    for name in STANDARD:
        value = ours[f'frequency_group/{iou_type}_{name}']
        assert value == pytest.approx(reference[name], abs=1e-9)
        # Full precision.
        assert name == 'APs' or value != round(value, 6)
    for group in 'rcf':
        key = f'frequency_group/{iou_type}_AP{group}_classes'
        assert ours[key] >= 20


@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_images=st.integers(1, 6),
    num_classes=st.integers(8, 20),
)
def test_equals_lviseval_on_any_federated_set(
    tmp_path_factory, seed, num_images, num_classes
):
    dataset = federated_dataset(seed, num_images, num_classes)
    path = tmp_path_factory.mktemp('federated') / 'val.json'
    ann_file = write_json(path, dataset)
    detections = perturbed(dataset, seed)
    metric = FrequencyGroupMetric(ann_file)
    ours = run(metric, dataset, detections, statistics_of(dataset))
    reference = lvis_results(ann_file, detections, 'bbox')
    for name in STANDARD:
        value = ours[f'frequency_group/bbox_{name}']
        assert value == pytest.approx(reference[name], abs=1e-9)


def coco_evaluation(ann_file, results, iou_type):
    ground_truth = COCO(ann_file)
    found = ground_truth.loadRes(copy.deepcopy(results))
    return COCOeval(ground_truth, found, iou_type)


def naive_class_ap(ann_file, results, iou_type, category_id):
    """AP of one class by pycocotools, or None: a loop over its table."""
    evaluation = coco_evaluation(ann_file, results, iou_type)
    evaluation.params.catIds = [category_id]
    evaluation.evaluate()
    evaluation.accumulate()
    values = []
    for precision in evaluation.eval['precision'][:, :, 0, 0, -1].ravel():
        if precision > -1:
            values.append(precision)
    return sum(values) / len(values) if values else None


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_equals_pycocotools_class_by_class(tmp_path, iou_type):
    dataset = coco_dataset(5, num_images=20, num_classes=24, with_masks=True)
    ann_file = write_json(tmp_path / 'val.json', dataset)
    detections = perturbed(dataset, 5, with_masks=True)
    statistics = statistics_of(dataset)
    metric = FrequencyGroupMetric(ann_file, metric=iou_type)
    ours = run(metric, dataset, detections, statistics)
    results = as_results(detections, iou_type)
    ap_of_group = {'rare': [], 'common': [], 'frequent': []}
    for label, category in enumerate(dataset['categories']):
        ap = naive_class_ap(ann_file, results, iou_type, category['id'])
        found = class_ap(metric, iou_type)[label]
        if ap is None:
            assert np.isnan(found)
        else:
            assert found == pytest.approx(ap, abs=1e-9)
            ap_of_group[statistics.frequency_group()[label]].append(ap)
    for name, values in ap_of_group.items():
        key = f'frequency_group/{iou_type}_AP{name[0]}'
        assert ours[key] == pytest.approx(sum(values) / len(values), abs=1e-9)
        assert ours[f'{key}_classes'] == len(values)
    evaluation = coco_evaluation(ann_file, results, iou_type)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    for name, expected in zip(STANDARD[:6], evaluation.stats[:6], strict=True):
        value = ours[f'frequency_group/{iou_type}_{name}']
        assert value == pytest.approx(expected, abs=1e-9)


# ----------------------------------------------------- groups, counts, files


def test_keys_have_the_standard_names_and_order(tmp_path):
    dataset = federated_dataset(0, num_images=10, num_classes=30)
    metric = FrequencyGroupMetric(write_json(tmp_path / 'val.json', dataset))
    ours = run(metric, dataset, perturbed(dataset, 0), statistics_of(dataset))
    means = [f'frequency_group/bbox_{name}' for name in STANDARD]
    assert list(ours) == [
        *means,
        *(f'{mean}_classes' for mean in means),
        'frequency_group/bbox_classes_without_instances',
    ]


def test_classes_without_instances_are_counted_and_stay_out(tmp_path):
    dataset = federated_dataset(1, num_images=10, num_classes=30)
    metric = FrequencyGroupMetric(write_json(tmp_path / 'val.json', dataset))
    ours = run(metric, dataset, perturbed(dataset, 1), statistics_of(dataset))
    annotated = {a['category_id'] for a in dataset['annotations']}
    absent = [c['id'] not in annotated for c in dataset['categories']]
    assert sum(absent) == 3
    assert np.isnan(class_ap(metric)).tolist() == absent
    assert ours['frequency_group/bbox_classes_without_instances'] == 3
    assert ours['frequency_group/bbox_AP_classes'] == 27
    group_classes = [
        ours[f'frequency_group/bbox_AP{group}_classes'] for group in 'rcf'
    ]
    assert sum(group_classes) == 27


@pytest.mark.parametrize('bin_by', ['instance_count', 'image_count'])
def test_bins(tmp_path, bin_by):
    dataset = federated_dataset(2, num_images=20, num_classes=45)
    # Exactly on an edge is in the bin above.
    dataset['categories'][1].update(image_count=20, instance_count=20)
    dataset['categories'][2].update(image_count=19, instance_count=19)
    statistics = statistics_of(dataset)
    metric = FrequencyGroupMetric(
        write_json(tmp_path / 'val.json', dataset),
        bin_edges=(20, 400, 8000, 10**9),
        bin_by=bin_by,
    )
    ours = run(metric, dataset, perturbed(dataset, 2), statistics)
    bins = {
        'below_20': (0, 20),
        '20_to_400': (20, 400),
        '400_to_8000': (400, 8000),
        '8000_to_1000000000': (8000, 10**9),
        'from_1000000000': (10**9, float('inf')),
    }
    counts = getattr(statistics, bin_by)
    for name, (low, high) in bins.items():
        values = []
        for count, ap in zip(counts, class_ap(metric), strict=True):
            if low <= count < high and not np.isnan(ap):
                values.append(ap)
        expected = sum(values) / len(values) if values else -1
        key = f'frequency_group/bbox_AP_{name}'
        assert ours[key] == pytest.approx(expected, abs=1e-12)
        assert ours[f'{key}_classes'] == len(values)
    plain = FrequencyGroupMetric(str(tmp_path / 'val.json'))
    without_bins = run(plain, dataset, perturbed(dataset, 2), statistics)
    assert without_bins.items() <= ours.items()


def test_per_class_file(tmp_path):
    dataset = federated_dataset(4, num_images=10, num_classes=30)
    path = tmp_path / 'made' / 'per_class.csv'
    metric = FrequencyGroupMetric(
        write_json(tmp_path / 'val.json', dataset), per_class_file=str(path)
    )
    statistics = statistics_of(dataset)
    run(metric, dataset, perturbed(dataset, 4), statistics)
    with open(path, newline='') as file:
        rows = list(csv.DictReader(file))
    assert [row['name'] for row in rows] == list(statistics.class_names)
    groups = [row['group'] for row in rows]
    assert groups == list(statistics.frequency_group())
    for label, row in enumerate(rows):
        ap = class_ap(metric)[label]
        assert int(row['image_count']) == statistics.image_count[label]
        assert int(row['instance_count']) == statistics.instance_count[label]
        assert row['bbox_AP'] == ('' if np.isnan(ap) else repr(float(ap)))
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    frame = metric.evaluations['bbox'].to_frame(statistics)
    assert [*frame.columns] == [*rows[0]]
    assert frame['name'].tolist() == [row['name'] for row in rows]
    for column in ('bbox_AP', 'bbox_recall', 'bbox_found'):
        values = [float(row[column] or 'nan') for row in rows]
        np.testing.assert_array_equal(frame[column], values)
    means = frame.groupby('group')['bbox_AP'].mean()
    rare = class_ap(metric)[statistics.frequency_groups()[0].members]
    assert means['rare'] == pytest.approx(np.nanmean(rare))


def test_detections_of_no_image_give_zeros(tmp_path):
    for format_name, dataset in {
        'lvis': federated_dataset(6, 10, 30, with_masks=True),
        'coco': coco_dataset(
            6, num_images=10, num_classes=30, with_masks=True
        ),
    }.items():
        detections = perturbed(dataset, 6, with_masks=True)
        for detection in detections:
            for key in ('bboxes', 'scores', 'category_ids', 'masks'):
                detection[key] = detection[key][:0]
        metric = FrequencyGroupMetric(
            write_json(tmp_path / f'{format_name}.json', dataset),
            metric=['bbox', 'segm'],
        )
        ours = run(metric, dataset, detections, statistics_of(dataset))
        for iou_type in ('bbox', 'segm'):
            for name in STANDARD:
                key = f'frequency_group/{iou_type}_{name}'
                assert ours[key] == (0 if ours[f'{key}_classes'] else -1)
        assert ours['frequency_group/bbox_AP'] == 0


def test_images_without_detections(tmp_path):
    dataset = federated_dataset(7, num_images=10, num_classes=30)
    ann_file = write_json(tmp_path / 'val.json', dataset)
    detections = perturbed(dataset, 7)
    for detection in detections[::2]:
        for key in ('bboxes', 'scores', 'category_ids'):
            detection[key] = detection[key][:0]
    metric = FrequencyGroupMetric(ann_file)
    ours = run(metric, dataset, detections, statistics_of(dataset))
    reference = lvis_results(ann_file, detections, 'bbox')
    for name in STANDARD:
        value = ours[f'frequency_group/bbox_{name}']
        assert value == pytest.approx(reference[name], abs=1e-9)


def test_a_group_without_any_class_is_minus_one(tmp_path):
    dataset = federated_dataset(8, num_images=4, num_classes=10)
    for category in dataset['categories']:
        category.update(image_count=5, instance_count=5)
    metric = FrequencyGroupMetric(write_json(tmp_path / 'val.json', dataset))
    ours = run(metric, dataset, perturbed(dataset, 8), statistics_of(dataset))
    assert ours['frequency_group/bbox_APr'] > 0
    assert ours['frequency_group/bbox_APc'] == -1
    assert ours['frequency_group/bbox_APf_classes'] == 0


def test_the_rules_can_be_chosen(tmp_path):
    federated = federated_dataset(9, num_images=10, num_classes=30)
    detections = perturbed(federated, 9)
    ann_file = write_json(tmp_path / 'val.json', federated)
    exhaustive = copy.deepcopy(federated)
    for image in exhaustive['images']:
        del image['neg_category_ids'], image['not_exhaustive_category_ids']
    as_coco = write_json(tmp_path / 'coco.json', exhaustive)
    results = {}
    for name, metric in {
        'lvis': FrequencyGroupMetric(ann_file),
        'forced': FrequencyGroupMetric(ann_file, annotation_format='coco'),
        'coco': FrequencyGroupMetric(as_coco),
    }.items():
        results[name] = run(
            metric, federated, detections, statistics_of(federated)
        )
    assert results['forced'] == results['coco']
    # Detections of classes that an image was not checked for count now.
    lowered = results['lvis']['frequency_group/bbox_AP']
    assert results['forced']['frequency_group/bbox_AP'] < lowered


def test_max_detections(tmp_path):
    dataset = federated_dataset(10, num_images=10, num_classes=30)
    ann_file = write_json(tmp_path / 'val.json', dataset)
    detections = perturbed(dataset, 10)
    metric = FrequencyGroupMetric(ann_file, max_detections=3)
    ours = run(metric, dataset, detections, statistics_of(dataset))
    found = LVISResults(ann_file, as_results(detections, 'bbox'), max_dets=3)
    evaluation = LVISEval(ann_file, found, 'bbox')
    evaluation.run()
    expected = evaluation.get_results()['AP']
    assert ours['frequency_group/bbox_AP'] == pytest.approx(expected, abs=1e-9)


def test_annotation_ids_do_not_matter(tmp_path):
    """Both evaluators take a match with annotation 0 for no match."""
    for dataset in (
        federated_dataset(11, num_images=5, num_classes=12),
        coco_dataset(11, num_images=5, num_classes=12),
    ):
        results = []
        detections = perturbed(dataset, 11)
        for first in (1, 0):
            for number, annotation in enumerate(dataset['annotations']):
                annotation['id'] = first + number
            metric = FrequencyGroupMetric(
                write_json(tmp_path / f'{first}.json', dataset)
            )
            statistics = statistics_of(dataset)
            results.append(run(metric, dataset, detections, statistics))
        assert results[0] == results[1]


def test_without_an_annotation_file_the_data_set_is_asked(tmp_path):
    dataset = federated_dataset(12, 8, 15, with_masks=True)
    detections = perturbed(dataset, 12, with_masks=True)
    statistics = statistics_of(dataset)
    ann_file = write_json(tmp_path / 'val.json', dataset)
    kinds = ['bbox', 'segm']
    with_file = FrequencyGroupMetric(ann_file, kinds, annotation_format='coco')
    expected = run(with_file, dataset, detections, statistics)

    label_of = {c['id']: k for k, c in enumerate(dataset['categories'])}
    metric = FrequencyGroupMetric(metric=kinds)
    metric.dataset_meta = with_file.dataset_meta
    metric.set_class_statistics(statistics)
    samples = as_data_samples(dataset, detections)
    for sample in samples:
        sample['instances'] = []
        for annotation in dataset['annotations']:
            x, y, w, h = annotation['bbox']
            if annotation['image_id'] == sample['img_id']:
                sample['instances'].append(
                    {
                        'bbox': [x, y, x + w, y + h],
                        'bbox_label': label_of[annotation['category_id']],
                        'mask': annotation['segmentation'],
                    }
                )
    metric.process({}, samples)
    assert metric.evaluate(len(samples)) == expected
    samples[0]['instances'][0]['mask'] = 'broken'
    metric.process({}, samples)
    with pytest.raises(LongTailError, match=r'the dataset: annotations\[0\]'):
        metric.evaluate(len(samples))


def test_format_only_writes_the_detections_of_a_test_set(tmp_path):
    dataset = federated_dataset(13, num_images=4, num_classes=10)
    detections = perturbed(dataset, 13)
    unannotated = dict(dataset)
    del unannotated['annotations']
    metric = FrequencyGroupMetric(
        write_json(tmp_path / 'test.json', unannotated),
        format_only=True,
        outfile_prefix=str(tmp_path / 'out' / 'test'),
    )
    assert run(metric, dataset, detections) == {}
    written = json.loads((tmp_path / 'out' / 'test.bbox.json').read_text())
    assert written == as_results(detections, 'bbox')


def test_repeated_evaluation_gives_the_same(tmp_path):
    dataset = federated_dataset(14, 8, 15, with_masks=True)
    detections = perturbed(dataset, 14, with_masks=True)
    metric = FrequencyGroupMetric(
        write_json(tmp_path / 'val.json', dataset), metric=['bbox', 'segm']
    )
    statistics = statistics_of(dataset)
    first = run(metric, dataset, detections, statistics)
    assert run(metric, dataset, detections, statistics) == first


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


# ------------------------------------------------------------- class order


def test_a_subset_of_the_classes(tmp_path):
    """COCO files may hold more categories than the dataset uses."""
    dataset = coco_dataset(15, num_images=10, num_classes=20)
    ann_file = write_json(tmp_path / 'val.json', dataset)
    used = dict(dataset, categories=dataset['categories'][3:12])
    ids = [c['id'] for c in used['categories']]
    detections = perturbed(dataset, 15)
    for detection in detections:
        kept = np.isin(detection['category_ids'], ids)
        for key in ('bboxes', 'scores', 'category_ids'):
            detection[key] = detection[key][kept]
    metric = FrequencyGroupMetric(ann_file)
    run(metric, used, detections, statistics_of(used))
    results = as_results(detections, 'bbox')
    for label, category_id in enumerate(ids):
        ap = naive_class_ap(ann_file, results, 'bbox', category_id)
        found = class_ap(metric)[label]
        assert found == pytest.approx(
            ap if ap is not None else np.nan, abs=1e-9, nan_ok=True
        )


def test_a_class_may_be_spelled_in_two_ways(tmp_path):
    """LVIS's files and mmdet spell one class differently."""
    dataset = federated_dataset(16, num_images=4, num_classes=10)
    statistics = statistics_of(dataset)
    detections = perturbed(dataset, 16)
    ann_file = write_json(tmp_path / 'val.json', dataset)
    expected = run(
        FrequencyGroupMetric(ann_file), dataset, detections, statistics
    )
    respelled = copy.deepcopy(dataset)
    respelled['categories'][4]['name'] = 'clas 4'
    for counted in (dataset, respelled):
        metric = FrequencyGroupMetric(ann_file)
        found = run(metric, respelled, detections, statistics_of(counted))
        assert found == expected


# ------------------------------------------------- where counts come from


def test_statistics_from_files(tmp_path):
    dataset = federated_dataset(17, num_images=8, num_classes=15)
    detections = perturbed(dataset, 17)
    ann_file = write_json(tmp_path / 'val.json', dataset)
    statistics = ClassStatistics.from_annotation_file(ann_file)
    statistics.save(tmp_path / 'statistics.json')
    expected = run(
        FrequencyGroupMetric(ann_file), dataset, detections, statistics
    )
    for source in (
        {'class_statistics': str(tmp_path / 'statistics.json')},
        {'train_ann_file': ann_file},
    ):
        metric = METRICS.build(
            dict(type='FrequencyGroupMetric', ann_file=ann_file, **source)
        )
        assert run(metric, dataset, detections) == expected
        assert metric.statistics == statistics
        # What the hook hands over wins.
        other = statistics_of(dataset)
        run(metric, dataset, detections, other)
        assert metric.statistics == other


def test_the_hook_hands_the_counts_over(tmp_path):
    data = make_data(tmp_path / 'data', num_val=4)
    config = Config.fromfile(write_config(tmp_path / 'config.py', data))
    evaluator = dict(
        type='FrequencyGroupMetric',
        ann_file=str(data / 'val.json'),
        metric=['bbox'],
        bin_edges=(2, 4),
    )
    config.merge_from_dict(
        {
            'work_dir': str(tmp_path / 'work_dir'),
            'default_hooks.class_statistics': dict(type='ClassStatisticsHook'),
            'default_hooks.checkpoint': dict(
                type='CheckpointHook',
                save_best='frequency_group/bbox_AP_below_2',
                rule='greater',
            ),
            'val_evaluator': dict(evaluator, _delete_=True),
            'test_evaluator': dict(evaluator, _delete_=True),
            'experiment_name': 'train',
        }
    )
    expected = ClassStatistics.from_annotation_file(data / 'train.json')
    runner = Runner.from_cfg(copy.deepcopy(config))
    runner.train()
    assert runner.val_evaluator.metrics[0].statistics == expected
    assert list(Path(runner.work_dir).glob('best_*AP_below_2_epoch_1.pth'))

    # A test knows the counts from the checkpoint.
    (data / 'train.json').unlink()
    config.load_from = str(Path(runner.work_dir) / 'epoch_1.pth')
    config.experiment_name = 'test'
    runner = Runner.from_cfg(config)
    results = runner.test()
    assert runner.test_evaluator.metrics[0].statistics == expected
    sizes = [(expected.bin_index((2, 4)) == g).sum() for g in range(3)]
    for name, size in zip(('below_2', '2_to_4', 'from_4'), sizes, strict=True):
        assert results[f'frequency_group/bbox_AP_{name}_classes'] == size


# --------------------------------------------------------------- bad input


def broken(dataset, change):
    dataset = copy.deepcopy(dataset)
    change(dataset)
    return dataset


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda d: d.pop('categories'), "the list 'categories' is missing"),
        (lambda d: d.pop('annotations'), "the list 'annotations' is missing"),
        (lambda d: d.update(images=[]), "'images' is empty"),
        (
            lambda d: d['annotations'][3].update(category_id=-5),
            'annotations[3] has category_id -5',
        ),
        (
            lambda d: d['annotations'][3].update(image_id=-5),
            'annotations[3] has image_id -5',
        ),
        (
            lambda d: d['categories'].append(d['categories'][0]),
            "categories[0] has the 'id'",
        ),
        (
            lambda d: d['annotations'][3].pop('area'),
            "annotations[3] has no 'area'",
        ),
        (
            lambda d: d['images'][2].pop('not_exhaustive_category_ids'),
            "has no 'not_exhaustive_category_ids'",
        ),
    ],
)
def test_a_broken_annotation_file(tmp_path, change, message):
    dataset = federated_dataset(19, num_images=4, num_classes=10)
    path = tmp_path / 'val.json'
    ann_file = write_json(path, broken(dataset, change))
    with pytest.raises(LongTailError) as error:
        FrequencyGroupMetric(ann_file)
    assert_one_line(error, message, ann_file)


def assert_one_line(error, *parts):
    text = str(error.value)
    assert '\n' not in text
    for part in parts:
        assert part in text


def test_an_annotation_file_that_is_no_file(tmp_path):
    with pytest.raises(LongTailError) as error:
        FrequencyGroupMetric(str(tmp_path / 'none.json'))
    assert_one_line(error, 'none.json: no such file')
    path = tmp_path / 'half.json'
    path.write_text('{"images": [')
    with pytest.raises(LongTailError) as error:
        FrequencyGroupMetric(str(path))
    assert_one_line(error, 'half.json: not valid JSON')


def test_masks_asked_for_where_there_are_none(tmp_path):
    dataset = federated_dataset(20, num_images=4, num_classes=10)
    ann_file = write_json(tmp_path / 'val.json', dataset)
    with pytest.raises(LongTailError) as error:
        FrequencyGroupMetric(ann_file, metric='segm')
    assert_one_line(error, "annotations[0] has no 'segmentation'")
    dataset = federated_dataset(20, 4, 10, with_masks=True)
    ann_file = write_json(tmp_path / 'val.json', dataset)
    metric = FrequencyGroupMetric(ann_file, metric='segm')
    with pytest.raises(LongTailError) as error:
        run(metric, dataset, perturbed(dataset, 20), statistics_of(dataset))
    assert_one_line(error, 'have no masks', "metric='bbox'")


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'metric': 'proposal'}, "metric is 'proposal'"),
        ({'metric': []}, "metric is '', expected 'bbox' or 'segm'"),
        ({'bin_by': 'boxes'}, "bin_by is 'boxes'"),
        ({'bin_edges': ()}, 'bin_edges is ()'),
        ({'bin_edges': (10, 5)}, 'bin_edges is (10, 5)'),
        ({'bin_edges': (0, 5)}, 'bin_edges is (0, 5)'),
        ({'bin_edges': ('a', 'b')}, 'bin_edges is'),
        ({'annotation_format': 'voc'}, "annotation_format is 'voc'"),
        ({'back_end': 'gpu'}, "back_end is 'gpu'"),
        ({'max_detections': 0}, 'max_detections'),
        ({'format_only': True}, 'outfile_prefix'),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(LongTailError) as error:
        FrequencyGroupMetric(**arguments)
    assert_one_line(error, 'FrequencyGroupMetric', message)


def test_lvis_rules_need_an_lvis_file(tmp_path):
    dataset = coco_dataset(21, num_images=4, num_classes=10)
    ann_file = write_json(tmp_path / 'val.json', dataset)
    with pytest.raises(LongTailError) as error:
        FrequencyGroupMetric(ann_file, annotation_format='lvis')
    assert_one_line(error, "no 'neg_category_ids'", "annotation_format='coco'")


def test_statistics_of_other_classes(tmp_path):
    dataset = federated_dataset(23, num_images=4, num_classes=10)
    ann_file = write_json(tmp_path / 'val.json', dataset)
    detections = perturbed(dataset, 23)
    other = copy.deepcopy(dataset)
    other['categories'][6]['name'] = 'pelican'
    with pytest.raises(LongTailError) as error:
        run(
            FrequencyGroupMetric(ann_file),
            dataset,
            detections,
            statistics_of(other),
        )
    assert_one_line(error, 'class 6 is', "'class 6'", "'pelican'")
    del other['categories'][6]
    with pytest.raises(LongTailError) as error:
        run(
            FrequencyGroupMetric(ann_file),
            dataset,
            detections,
            statistics_of(other),
        )
    assert_one_line(error, 'has 9 classes', 'has 10')


@pytest.mark.parametrize(
    ('classes', 'message'),
    [
        ([f'class {k}' for k in range(11)], "'class 10' is not among"),
        (['pelican', *(f'class {k}' for k in range(8))], "'pelican'"),
        ([f'class {k}' for k in reversed(range(10))], 'class 0'),
    ],
)
def test_a_validation_file_of_other_classes(tmp_path, classes, message):
    dataset = federated_dataset(24, num_images=4, num_classes=10)
    ann_file = write_json(tmp_path / 'val.json', dataset)
    metric = FrequencyGroupMetric(ann_file)
    metric.dataset_meta = {'classes': classes}
    metric.set_class_statistics(statistics_of(dataset))
    with pytest.raises(LongTailError) as error:
        metric.process({}, as_data_samples(dataset, perturbed(dataset, 24)))
    assert_one_line(error, ann_file, message)


def test_detections_of_another_set(tmp_path):
    dataset = federated_dataset(25, num_images=4, num_classes=10)
    ann_file = write_json(tmp_path / 'val.json', dataset)
    samples = as_data_samples(dataset, perturbed(dataset, 25))
    samples[1]['pred_instances']['labels'][0] = 80
    metric = FrequencyGroupMetric(ann_file)
    metric.set_class_statistics(statistics_of(dataset))
    with pytest.raises(LongTailError) as error:
        metric.process({}, samples)
    assert_one_line(error, 'label 80', '10 classes', 'num_classes')
    samples[0]['img_id'] = 123
    metric = FrequencyGroupMetric(ann_file)
    metric.set_class_statistics(statistics_of(dataset))
    with pytest.raises(LongTailError) as error:
        metric.process({}, samples)
    assert_one_line(error, 'image 123', 'ann_file')


def test_a_per_class_file_that_cannot_be_written(tmp_path):
    dataset = federated_dataset(26, num_images=4, num_classes=10)
    (tmp_path / 'file').write_text('')
    metric = FrequencyGroupMetric(
        write_json(tmp_path / 'val.json', dataset),
        per_class_file=str(tmp_path / 'file' / 'per_class.csv'),
    )
    with pytest.raises(LongTailError) as error:
        run(metric, dataset, perturbed(dataset, 26), statistics_of(dataset))
    assert_one_line(error, 'per_class.csv', 'cannot be written')


def test_lvis_itself_is_left_alone(tmp_path):
    """LVISMetric of mmdet and lvis of the user go on as before."""
    dataset = federated_dataset(27, num_images=4, num_classes=10)
    ann_file = write_json(tmp_path / 'val.json', dataset)
    assert not hasattr(np, 'float')
    assert LVIS(ann_file).dataset == dataset


def test_a_score_that_is_no_number(tmp_path):
    dataset = federated_dataset(19, num_images=4, num_classes=10)
    detections = perturbed(dataset, 19)
    detections[1]['scores'][0] = np.nan
    metric = FrequencyGroupMetric(write_json(tmp_path / 'val.json', dataset))
    with pytest.raises(LongTailError, match='scores are NaN'):
        run(metric, dataset, detections, statistics_of(dataset))


# ---------------------------------------------------------------- AP-Fixed


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
def test_bad_arguments_of_fixed_ap(arguments, message):
    with pytest.raises(LongTailError, match=f'FixedAPMetric: {message}'):
        FixedAPMetric(**arguments)

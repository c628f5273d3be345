"""Evaluation, comparison and test of result files by the tools."""

import csv
import json
import re

import numpy as np
import pytest
import torch
from detection_sets import (
    as_results,
    coco_dataset,
    federated_dataset,
    perturbed,
    run,
    statistics_of,
    write_json,
)
from tiny import make_data, write_config
from tool_runs import refused, run_tool

from mmdet_longtail.evaluation.functional import (
    Detections,
    EvaluationSpec,
    GroundTruth,
    bootstrap_means,
    differences,
    evaluate,
    intervals,
)
from mmdet_longtail.evaluation.metrics import (
    FixedAPMetric,
    FrequencyGroupMetric,
    ProposalRecallMetric,
)

SEED = 0
GROUPS = ('APr', 'APc', 'APf', 'APr+c')
TEST_CONFIG = """
_base_ = 'tiny.py'
default_hooks = dict(class_statistics=dict(
    type='ClassStatisticsHook', class_statistics='train_statistics.json'))
test_evaluator = dict(
    _delete_=True, type='FrequencyGroupMetric', ann_file='data/val.json')
"""


def results_of(detections, iou_type):
    results = as_results(detections, iou_type)
    for result in results:
        if iou_type == 'segm':
            encoding = result['segmentation']
            encoding['counts'] = encoding['counts'].decode()
    return results


@pytest.fixture(scope='module')
def dataset():
    return federated_dataset(SEED, 15, 30, with_masks=True)


@pytest.fixture(scope='module')
def detections(dataset):
    return perturbed(dataset, SEED, with_masks=True)


@pytest.fixture(scope='module')
def folder(dataset, detections, tmp_path_factory):
    """A validation set, counts, and results of three detectors."""
    folder = tmp_path_factory.mktemp('results')
    write_json(folder / 'val.json', dataset)
    write_json(folder / 'coco.json', coco_dataset(1, num_images=4))
    write_json(folder / 'nothing.json', [])
    statistics_of(dataset).save(folder / 'stats.json')
    for iou_type in ('bbox', 'segm'):
        results = results_of(detections, iou_type)
        write_json(folder / f'a.{iou_type}.json', results)
    for seed, name in ((1, 'b'), (2, 'c')):
        results = results_of(perturbed(dataset, seed), 'bbox')
        write_json(folder / f'{name}.bbox.json', results)
    return folder


def read(path):
    return json.loads(path.read_text())


def library_evaluation(folder, results, iou_type='bbox'):
    ground_truth = GroundTruth.load(str(folder / 'val.json'), [iou_type])
    found = Detections.load(folder / results, ground_truth, iou_type)
    groups = statistics_of(ground_truth.dataset).frequency_groups()
    return evaluate(EvaluationSpec(ground_truth, found), groups)


# ---------------------------------------------------------------- evaluate


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_evaluate_says_what_the_metrics_say(
    folder, dataset, detections, tmp_path, iou_type
):
    process = run_tool(
        'evaluate.py',
        f'a.{iou_type}.json',
        *('--ann', 'val.json', '--statistics', 'stats.json'),
        *('--iou-type', iou_type, '--fixed-ap', '--proposal-recall'),
        *('--per-class', tmp_path / 'out' / 'ours.csv'),
        *('--json', tmp_path / 'out' / 'ours.json'),
        cwd=folder,
    )
    ours = read(tmp_path / 'out' / 'ours.json')
    assert set(ours) == {'results', 'annotations', 'metrics'}
    theirs = {}
    arguments = {
        'ann_file': str(folder / 'val.json'),
        'metric': iou_type,
        'class_statistics': str(folder / 'stats.json'),
    }
    for metric in (
        FrequencyGroupMetric(
            per_class_file=str(tmp_path / 'theirs.csv'), **arguments
        ),
        FixedAPMetric(**arguments),
        ProposalRecallMetric(**arguments),
    ):
        theirs |= run(metric, dataset, detections)
    for key, value in theirs.items():
        assert ours['metrics'][key] == pytest.approx(value, abs=1e-9), key
    pooled = set(ours['metrics']) - set(theirs)
    assert {
        re.sub(r'.*_A[PR](r\+c)(@\d+|_classes)?', r'\1', k) for k in pooled
    } == {'r+c'}
    assert ours['metrics'][f'frequency_group/{iou_type}_AP'] > 0.1
    table = (tmp_path / 'theirs.csv').read_text()
    assert (tmp_path / 'out' / 'ours.csv').read_text() == table
    assert 'by the rules of LVIS' in process.stdout
    assert 'No groups' not in process.stdout
    for key in ('AP', 'APr', 'APr+c', 'AR@1000'):
        assert re.search(
            rf'^ +{re.escape(key)} +\d+\.\d\d ', process.stdout, re.M
        )


def test_intervals_of_a_result_file(folder, call_tool):
    call_tool(
        'evaluate.py',
        'a.bbox.json',
        *('--ann', 'val.json', '--statistics', 'stats.json', '--fixed-ap'),
        *('--bootstrap', 20, '--seed', 3, '--confidence', 0.8),
        *('--json', 'intervals.json'),
        cwd=folder,
    )
    content = read(folder / 'intervals.json')
    settings = content['bootstrap']
    assert settings['repeats'] == 20
    assert (settings['seed'], settings['confidence']) == (3, 0.8)
    evaluation = library_evaluation(folder, 'a.bbox.json')
    [means] = bootstrap_means([evaluation], 20, 3)
    for key, expected in intervals(evaluation, means, 0.8).items():
        found = settings['intervals'][f'frequency_group/bbox_{key}']
        assert found == pytest.approx(expected)
        assert expected[0] < expected[1]
    of_fixed = {k for k in settings['intervals'] if k.startswith('fixed_ap')}
    assert of_fixed == {f'fixed_ap/bbox_{k}' for k in ('AP', *GROUPS)}


def test_without_counts_there_are_no_groups(folder, tmp_path, call_tool):
    outcome = call_tool(
        'evaluate.py',
        *('a.bbox.json', '--ann', 'val.json', '--bootstrap', 2),
        *('--per-class', tmp_path / 'classes.csv'),
        *('--json', tmp_path / 'metrics.json'),
        cwd=folder,
    )
    assert outcome.returncode == 0
    assert 'No groups: add --statistics' in outcome.stdout
    content = read(tmp_path / 'metrics.json')
    assert set(content['bootstrap']['intervals']) == {
        'frequency_group/bbox_AP'
    }
    expected = library_evaluation(folder, 'a.bbox.json').metrics()
    for key in ('AP', 'AP50', 'APl', 'AP_classes'):
        value = content['metrics'][f'frequency_group/bbox_{key}']
        assert value == pytest.approx(expected[key])
    assert 'frequency_group/bbox_APr' not in content['metrics']
    with open(tmp_path / 'classes.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30
    assert list(rows[0])[:2] == ['name', 'bbox_AP']


def test_groups_from_annotations_and_bins(folder, tmp_path, call_tool):
    outcome = call_tool(
        'evaluate.py',
        *('a.bbox.json', '--ann', 'val.json', '--train', 'val.json'),
        *('--bin-edges', 3, 5, '--bin-by', 'image_count'),
        *('--annotation-format', 'coco', '--max-detections', 5),
        *('--back-end', 'reference', '--json', tmp_path / 'metrics.json'),
        cwd=folder,
    )
    assert 'by the rules of COCO' in outcome.stdout
    metrics = read(tmp_path / 'metrics.json')['metrics']
    names = ['AP_below_3', 'AP_3_to_5', 'AP_from_5']
    classes = [metrics[f'frequency_group/bbox_{n}_classes'] for n in names]
    assert sum(classes) == metrics['frequency_group/bbox_AP_classes'] == 27
    assert not [key for key in metrics if '+' in key]


def test_nothing_found_is_legal(folder, tmp_path, call_tool):
    outcome = call_tool(
        'evaluate.py',
        *('nothing.json', '--ann', 'val.json', '--statistics', 'stats.json'),
        *('--fixed-ap', '--proposal-recall', '--bootstrap', 3),
        *('--per-class', tmp_path / 'a.csv', '--json', tmp_path / 'a.json'),
        cwd=folder,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert 'warning: nothing was detected' in outcome.stdout
    content = read(tmp_path / 'a.json')
    for key in ('AP', *GROUPS):
        assert content['metrics'][f'frequency_group/bbox_{key}'] == 0
        found = content['bootstrap']['intervals'][f'fixed_ap/bbox_{key}']
        assert found == [0, 0]


# ----------------------------------------------------------------- compare


def test_compare(folder, tmp_path):
    process = run_tool(
        'analysis_tools/compare.py',
        *('a.bbox.json', 'b.bbox.json', 'c.bbox.json'),
        *('--ann', 'val.json', '--statistics', 'stats.json'),
        *('--names', 'one', 'two', 'three', '--bootstrap', 20),
        *('--plot', tmp_path / 'classes.png', '--json', tmp_path / 'all.json'),
        cwd=folder,
    )
    evaluations = [
        library_evaluation(folder, f'{name}.bbox.json') for name in 'abc'
    ]
    means = bootstrap_means(evaluations, 20)
    expected = differences(evaluations, means)
    detectors = read(tmp_path / 'all.json')['detectors']
    assert [d['name'] for d in detectors] == ['one', 'two', 'three']
    for detector, evaluation, its_means, to_first in zip(
        detectors, evaluations, means, expected
    ):
        of_means = intervals(evaluation, its_means)
        for key, difference in to_first.items():
            name = f'frequency_group/bbox_{key}'
            found = detector['difference_to_first'][name]
            assert found['value'] == pytest.approx(difference.value)
            assert found['low'] == pytest.approx(difference.low)
            assert found['high'] == pytest.approx(difference.high)
            assert detector['intervals'][name] == pytest.approx(of_means[key])
            assert detector['metrics'][name] == pytest.approx(
                evaluation.metrics()[key]
            )
        name = 'frequency_group/bbox_APr+c'
        assert name in detector['difference_to_first']
    assert (tmp_path / 'classes.png').read_bytes().startswith(b'\x89PNG')
    head = re.search(r'mean .*', process.stdout).group().split()
    assert head == ['mean', 'classes', 'one', 'two', 'three']
    assert process.stdout.count('APr+c') == 2
    assert 'difference to one' in process.stdout


def test_a_detector_against_itself_and_against_nothing(folder, call_tool):
    outcome = call_tool(
        'analysis_tools/compare.py',
        *('a.bbox.json', 'a.bbox.json', 'nothing.json'),
        *('--ann', 'val.json', '--statistics', 'stats.json'),
        *('--bootstrap', 10, '--json', 'same.json', '--plot', 'same.svg'),
        cwd=folder,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert 'nothing: nothing was detected' in outcome.stdout
    a, same, nothing = read(folder / 'same.json')['detectors']
    assert [a['name'], same['name']] == ['1 a', '2 a']
    for difference in same['difference_to_first'].values():
        assert difference == {'value': 0, 'low': 0, 'high': 0}
    for difference in nothing['difference_to_first'].values():
        assert difference['high'] < 0
    rows = outcome.stdout.partition('difference to')[2].splitlines()
    marked = [row for row in rows if row.split()[:1] == ['AP']]
    assert len(marked) == 1 and marked[0].count('*') == 1
    assert marked[0].rstrip().endswith('*')


def test_compare_masks_without_counts(folder, call_tool):
    outcome = call_tool(
        'analysis_tools/compare.py',
        *('a.segm.json', 'a.segm.json', '--ann', 'val.json'),
        *('--iou-type', 'segm', '--names', 'x', 'y', '--bootstrap', 3),
        *('--plot', 'segm.png'),
        cwd=folder,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert 'No groups' in outcome.stdout
    assert 'APr' not in outcome.stdout


def test_a_set_without_objects(folder, dataset, tmp_path, call_tool):
    path = write_json(tmp_path / 'none.json', dict(dataset, annotations=[]))
    given = ('--ann', path, '--bootstrap', 2, '--json', tmp_path / 'out.json')
    outcome = call_tool('evaluate.py', 'a.bbox.json', *given, cwd=folder)
    assert outcome.returncode == 0, outcome.stderr
    content = read(tmp_path / 'out.json')
    assert content['metrics']['frequency_group/bbox_AP'] == -1
    assert content['bootstrap']['intervals'] == {}
    outcome = call_tool(
        *('analysis_tools/compare.py', 'a.bbox.json', 'b.bbox.json', *given),
        *('--plot', tmp_path / 'none.png'),
        cwd=folder,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert re.search(r'AP +0 +- +-', outcome.stdout)


# --------------------------------------------------------------- bad input


def first(**fields):
    def change(results):
        results[0].update(fields)

    return change


def nan(results):
    results[3]['score'] = float('nan')


def other_size(results):
    results[0]['segmentation'] = {'size': [7, 9], 'counts': 'o1'}


def of_another_set(results):
    for number, result in enumerate(results):
        result['image_id'] = 10**6 + number


# iou type, a change of the results, what the line says
BAD_RESULTS = {
    'unknown class': ('bbox', first(category_id=-8), 'category_id -8'),
    'unknown image': ('bbox', first(image_id='x'), "image_id 'x'"),
    'another set': ('bbox', of_another_set, 'image_id 1000000'),
    'NaN': ('bbox', nan, '1 scores are NaN'),
    'no number': (
        'bbox',
        first(score='high'),
        "score 'high', expected a finite number",
    ),
    'NaN box': ('bbox', first(bbox=[0, 0, float('nan'), 1]), 'a box in image'),
    'three numbers': ('bbox', first(bbox=[0, 0, 1]), 'expected four finite n'),
    'mask of another size': ('segm', other_size, 'has the size [7, 9]'),
    'polygon': ('segm', first(segmentation=[[0, 0, 1, 1, 2, 0]]), 'run-leng'),
    'broken mask': (
        'segm',
        first(segmentation={'size': [160, 160], 'counts': '!'}),
        'run-length',
    ),
    'uncompressed mask': (
        'segm',
        first(segmentation={'size': [160, 160], 'counts': [25600]}),
        'run-length',
    ),
}


@pytest.mark.parametrize('tool', ['evaluate.py', 'analysis_tools/compare.py'])
@pytest.mark.parametrize('name', BAD_RESULTS)
def test_bad_results(name, tool, folder, tmp_path, call_tool):
    iou_type, change, expected = BAD_RESULTS[name]
    results = read(folder / f'a.{iou_type}.json')[:20]
    change(results)
    path = write_json(tmp_path / 'bad.json', results)
    good = (
        [f'a.{iou_type}.json'] if tool == 'analysis_tools/compare.py' else []
    )
    outcome = call_tool(
        tool,
        *(*good, path, '--ann', 'val.json', '--iou-type', iou_type),
        *('--json', tmp_path / 'out.json'),
        cwd=folder,
    )
    line = refused(outcome)
    assert line.startswith(f'{path}: ') and expected in line
    assert not (tmp_path / 'out.json').exists()


GOOD = ['evaluate.py', 'a.bbox.json', '--ann', 'val.json']
COMPARED = [
    'analysis_tools/compare.py',
    'a.bbox.json',
    'b.bbox.json',
    '--ann',
    'val.json',
]
BAD_COMMANDS = {
    'no results': (
        ['evaluate.py', 'no.json', '--ann', 'val.json'],
        'no.json: no such file',
    ),
    'no annotations': (
        ['evaluate.py', 'a.bbox.json', '--ann', 'no.json'],
        'no.json: no such file',
    ),
    'results are annotations': (
        ['evaluate.py', 'val.json', '--ann', 'val.json'],
        'expected a list of detections',
    ),
    'annotations are results': (
        ['evaluate.py', 'a.bbox.json', '--ann', 'a.bbox.json'],
        'a.bbox.json: ',
    ),
    'boxes as masks': (
        [*GOOD, '--iou-type', 'segm'],
        "detection 0 has no 'segmentation'",
    ),
    'no statistics': (
        [*GOOD, '--statistics', 'no.json'],
        'no.json: no such file',
    ),
    'no training set': ([*GOOD, '--train', 'no.json'], 'no such file'),
    'statistics are annotations': (
        [*GOOD, '--statistics', 'val.json'],
        'val.json: not class statistics',
    ),
    'statistics of others': (
        [*GOOD, '--train', 'coco.json'],
        'val.json has 30',
    ),
    'bins without counts': ([*GOOD, '--bin-edges', 10], '--bin-edges: groups'),
    'bins that fall': (
        [*GOOD, '--statistics', 'stats.json', '--bin-edges', 10, 3],
        'bin_edges is [10.0, 3.0]',
    ),
    'not federated': (
        [*GOOD[:3], 'coco.json', '--annotation-format', 'lvis'],
        "has no 'neg_category_ids'",
    ),
    'written over': ([*GOOD, '--json', 'val.json'], 'val.json: is read by'),
    'written twice': (
        [*GOOD, '--json', 'x.json', '--per-class', './x.json'],
        'x.json: is given for two outputs',
    ),
    'a folder': (
        [*GOOD, '--json', '.'],
        '.: cannot be written (it is a folder)',
    ),
    'report over results': (
        ['analysis_tools/report.py', 'a.bbox.json', '--out', 'a.bbox.json'],
        'a.bbox.json: is read by',
    ),
    'report as a folder': (
        ['analysis_tools/report.py', 'a.bbox.json', '--out', '.'],
        '.: cannot be written (it is a folder)',
    ),
    'pictures over files': (
        ['analysis_tools/show_detections.py', 'no.pth', '--out', '.'],
        '.: exists already',
    ),
    'too few names': ([*COMPARED, '--names', 'x'], '--names: expected 2'),
    'names alike': ([*COMPARED, '--names', 'x', 'x'], 'different names'),
    'unknown picture': ([*COMPARED, '--plot', 'p.docx'], 'p.docx: '),
    'no folder': (
        [*GOOD, '--json', 'val.json/x.json'],
        'x.json: cannot be written',
    ),
}


@pytest.mark.parametrize('name', BAD_COMMANDS)
def test_bad_command(name, folder, call_tool):
    arguments, expected = BAD_COMMANDS[name]
    assert expected in refused(call_tool(*arguments, cwd=folder))


def test_truncated_files(folder, tmp_path, call_tool):
    for name in ('a.bbox.json', 'val.json', 'stats.json'):
        text = (folder / name).read_text()
        (tmp_path / name).write_text(text[: len(text) // 2])
        paths = [
            str((tmp_path if other == name else folder) / other)
            for other in ('a.bbox.json', 'val.json', 'stats.json')
        ]
        line = refused(
            call_tool(
                *('evaluate.py', paths[0], '--ann', paths[1]),
                *('--statistics', paths[2]),
            )
        )
        assert line.startswith(f'{tmp_path / name}: not valid JSON')


@pytest.mark.parametrize(
    'options',
    [
        ['--bootstrap', 0],
        ['--confidence', 1],
        ['--max-detections', 0],
        ['--seed', -1],
        ['--seed', 2**32],
        ['--statistics', 'stats.json', '--train', 'val.json'],
    ],
)
def test_numbers_out_of_range(options, folder, call_tool):
    outcome = call_tool(*GOOD, *options, cwd=folder)
    assert outcome.returncode == 2
    assert 'error: argument' in outcome.stderr


# ----------------------------------------------------------- tools/test.py


@pytest.fixture(scope='module')
def detector(tmp_path_factory):
    """A dataset, a config, and a checkpoint that has learned nothing."""
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules
    from mmengine.config import Config

    from mmdet_longtail.structures.class_statistics import ClassStatistics

    folder = tmp_path_factory.mktemp('detector')
    make_data(folder / 'data', num_val=4)
    write_config(folder / 'tiny.py', folder / 'data')
    (folder / 'grouped.py').write_text(TEST_CONFIG)
    path = folder / 'data' / 'train.json'
    ClassStatistics.from_annotation_file(path).save(
        folder / 'train_statistics.json'
    )
    register_all_modules()
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(folder / 'tiny.py').model)
    torch.save({'state_dict': model.state_dict()}, folder / 'weights.pth')
    return folder


def test_test_and_evaluate_agree(detector, call_tool):
    run_tool(
        'test.py',
        *('grouped.py', 'weights.pth', '--out', 'found/all'),
        *('--bootstrap', 5, '--json', 'test.json', '--per-class', 'test.csv'),
        cwd=detector,
    )
    outcome = call_tool(
        'evaluate.py',
        *('found/all.bbox.json', '--ann', 'data/val.json'),
        *('--train', 'data/train.json', '--bootstrap', 5),
        *('--json', 'evaluate.json', '--per-class', 'evaluate.csv'),
        cwd=detector,
    )
    assert outcome.returncode == 0, outcome.stderr
    tested, evaluated = (
        read(detector / 'test.json'),
        read(detector / 'evaluate.json'),
    )
    assert tested['config'] == 'grouped.py'
    for name, value in tested['metrics'].items():
        assert evaluated['metrics'][name] == pytest.approx(value, abs=1e-9)
    for name, values in tested['bootstrap']['intervals'].items():
        found = evaluated['bootstrap']['intervals'][name]
        assert found == pytest.approx(values, abs=1e-9)
    assert 'frequency_group/bbox_AP' in tested['bootstrap']['intervals']
    table = (detector / 'test.csv').read_text()
    assert (detector / 'evaluate.csv').read_text() == table
    rows = list(csv.DictReader(table.splitlines()))
    assert np.sum([int(row['bbox_detections']) for row in rows]) > 0


@pytest.mark.parametrize(
    'options', [['--bootstrap', 5], ['--per-class', 'x.csv']]
)
def test_test_needs_a_metric_of_classes(options, detector, call_tool):
    line = refused(
        call_tool('test.py', 'tiny.py', 'weights.pth', *options, cwd=detector)
    )
    assert 'FrequencyGroupMetric' in line
    assert not (detector / 'x.csv').exists()

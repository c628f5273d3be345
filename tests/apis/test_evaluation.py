"""Evaluation and comparison of result files, called from Python."""

import json
import re

import pytest
from detection_sets import (
    as_results,
    coco_dataset,
    federated_dataset,
    perturbed,
    statistics_of,
    write_json,
)

from mmdet_longtail.apis.evaluation import (
    Bootstrap,
    ValidationSet,
    name_detectors,
    show_comparison,
    show_evaluation,
)
from mmdet_longtail.errors import LongTailError


@pytest.fixture(scope='module')
def dataset():
    return federated_dataset(0, 10, 20)


@pytest.fixture(scope='module')
def folder(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp('results')
    write_json(folder / 'val.json', dataset)
    for seed, name in enumerate('ab'):
        results = as_results(perturbed(dataset, seed), 'bbox')
        write_json(folder / f'{name}.json', results)
    return folder


@pytest.fixture(scope='module')
def validation(folder, dataset):
    path = str(folder / 'val.json')
    return ValidationSet.load(path, statistics=statistics_of(dataset))


def test_checked_share_is_the_mean_over_images(dataset, validation, folder):
    shares = []
    for image in dataset['images']:
        found = {
            a['category_id']
            for a in dataset['annotations']
            if a['image_id'] == image['id']
        }
        shares.append(len(found) + len(image['neg_category_ids']))
    expected = sum(shares) / len(shares) / len(dataset['categories'])
    assert validation.checked_share() == pytest.approx(expected)
    path = write_json(folder / 'coco.json', coco_dataset(1, num_images=2))
    assert ValidationSet.load(str(path)).checked_share() is None


def test_show_evaluation_writes_what_it_returns(folder, validation, capsys):
    results, out = folder / 'a.json', folder / 'metrics.json'
    metrics = show_evaluation(
        results,
        validation,
        Bootstrap(3),
        json_file=out,
        without_confusions=True,
        fixed_ap=True,
    )
    content = json.loads(out.read_text())
    assert content['metrics'] == pytest.approx(metrics)
    assert content['bootstrap']['repeats'] == 3
    assert content['bootstrap']['intervals'].keys() <= metrics.keys()
    printed = capsys.readouterr().out
    numbers = r': ([\d,]+) detections in .*\n([\d,]+) lie on an object'
    [found, errors] = re.search(numbers, printed).groups()
    assert 0 < int(errors.replace(',', '')) < int(found.replace(',', ''))
    plain = show_evaluation(results, validation)
    assert 'lie on an object' not in capsys.readouterr().out
    key = 'frequency_group/bbox_AP'
    assert plain[key] <= metrics[key]


def test_show_comparison_writes_what_it_returns(folder, validation):
    results = {name: folder / f'{name}.json' for name in 'ab'}
    out = folder / 'compared.json'
    settings = Bootstrap(4, seed=1)
    shown = show_comparison(results, validation, settings, json_file=out)
    content = json.loads(out.read_text())
    assert content['bootstrap'] == {
        'repeats': 4,
        'seed': 1,
        'confidence': 0.95,
    }
    [a, b] = content['detectors']
    assert [a['name'], b['results']] == ['a', str(folder / 'b.json')]
    key = 'frequency_group/bbox_AP'
    assert a['metrics'][key] == pytest.approx(shown['a'].means()['AP'])
    difference = b['metrics'][key] - a['metrics'][key]
    assert b['difference_to_first'][key]['value'] == pytest.approx(difference)
    show_comparison(results, validation, settings, json_file=out)
    assert json.loads(out.read_text()) == content


def test_names_of_detectors(tmp_path):
    assert name_detectors(['x/a.bbox.json', 'x/b.bbox.json']) == ['a', 'b']
    same = ['x/a.json', 'y/a.json']
    assert name_detectors(same) == same
    assert name_detectors(['a.json', 'a.json']) == ['1 a', '2 a']
    for name in ('epoch_1.pth', 'iter_9.pth', 'best_AP_epoch_1.pth', ''):
        assert name_detectors([tmp_path / name]) == [tmp_path.name]
    assert name_detectors([tmp_path / 'norcal.pth']) == ['norcal']
    assert name_detectors(same, ['one', 'two']) == ['one', 'two']
    with pytest.raises(LongTailError, match='expected 2 different names'):
        name_detectors(same, ['one', 'one'])

"""The contract of every metric that the package registers."""

import copy
import json
import pickle
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from metric_contract import ENTRIES, build, evaluate
from mmdet.registry import METRICS
from mmengine.logging import MMLogger
from ranks import run_on_two_ranks

from mmdet_longtail.errors import LongTailError

NAMES = sorted(
    name
    for name, metric in METRICS.module_dict.items()
    if metric.__module__.startswith('mmdet_longtail.')
)


@pytest.fixture(params=NAMES)
def entry(request, tmp_path):
    return ENTRIES[request.param](request.param, tmp_path)


def without_prefix(metrics):
    return {key.rpartition('/')[2]: value for key, value in metrics.items()}


def assert_equal(found, expected):
    assert list(found) == list(expected)
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, abs=1e-12), key


def test_equals_the_reference(entry):
    found = without_prefix(evaluate(build(entry), entry.samples))
    theirs = METRICS.build(entry.reference)
    theirs.dataset_meta = entry.dataset_meta
    if hasattr(theirs, 'set_class_statistics'):
        theirs.set_class_statistics(entry.statistics)
    expected = without_prefix(evaluate(theirs, entry.samples))
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, abs=1e-9), key
    assert all(isinstance(value, float | int) for value in found.values())
    assert any(0 < value < 1 for value in found.values())


def test_any_order_of_the_images(entry):
    expected = evaluate(build(entry), entry.samples)
    shuffled = random.Random(0).sample(entry.samples, len(entry.samples))
    assert_equal(evaluate(build(entry), shuffled), expected)


def test_pickling(entry):
    expected = evaluate(build(entry), entry.samples)
    metric = pickle.loads(pickle.dumps(build(entry)))
    assert_equal(evaluate(metric, entry.samples), expected)
    # Again after an evaluation, as a loop evaluates after every epoch.
    metric = pickle.loads(pickle.dumps(metric))
    assert_equal(evaluate(metric, entry.samples), expected)


def evaluate_on_rank(rank, entry, path):
    samples = entry.samples
    # DefaultSampler repeats images until all ranks have equally many.
    samples = samples + samples[: len(samples) % 2]
    metric = build(entry)
    for sample in samples[rank::2]:
        metric.process({}, [sample])
    found = metric.evaluate(len(entry.samples))
    (path / f'{rank}.json').write_text(json.dumps(found))


def test_two_ranks_equal_one(entry, tmp_path):
    expected = evaluate(build(entry), entry.samples)
    run_on_two_ranks(evaluate_on_rank, entry, tmp_path)
    for rank in (0, 1):
        found = json.loads((tmp_path / f'{rank}.json').read_text())
        assert_equal(found, expected)


def test_an_image_given_twice(entry):
    samples = copy.deepcopy([*entry.samples, entry.samples[0]])
    for number, sample in enumerate(samples):
        sample['img_path'] = f'{number % len(entry.samples)}.jpg'
    with pytest.raises(LongTailError, match='twice') as error:
        evaluate(build(entry), samples)
    assert '\n' not in str(error.value)
    # An evaluation after an interrupted one starts anew.
    metric = build(entry)
    metric.process({}, copy.deepcopy(samples[:1]))
    metric.results.clear()
    assert evaluate(metric, samples[:-1])


@pytest.fixture
def logged(capsys):
    """Return what the logger has written."""
    MMLogger._instance_dict.clear()  # A logger writes a warning once.
    yield lambda: ''.join(capsys.readouterr())
    MMLogger._instance_dict.clear()


def test_part_of_the_images(entry, tmp_path, logged):
    part = entry.samples[::3]
    found = evaluate(build(entry), part)
    if 'ann_file' not in entry.config:
        return
    assert 'only 3 of the 9 images' in logged()
    content = json.loads(Path(entry.config['ann_file']).read_text())
    ids = [sample['img_id'] for sample in part]
    content['images'] = [i for i in content['images'] if i['id'] in ids]
    content['annotations'] = [
        a for a in content['annotations'] if a['image_id'] in ids
    ]
    (tmp_path / 'part.json').write_text(json.dumps(content))
    metric = build(entry, ann_file=str(tmp_path / 'part.json'))
    assert_equal(found, evaluate(metric, part))
    assert any(0 < value < 1 for value in found.values())


def test_an_id_of_another_type(entry):
    if 'ann_file' not in entry.config:
        pytest.skip('uses no ids')
    samples = copy.deepcopy(entry.samples)
    samples[1]['img_id'] = str(samples[1]['img_id'])
    with pytest.raises(LongTailError, match='differ in their type'):
        evaluate(build(entry), samples)


def fail_on_rank(rank, entry, path):
    names = tuple(f'other {c}' for c in range(entry.statistics.num_classes))
    other = replace(entry.statistics, class_names=names)
    for name, metric, samples in (
        ('classes', build(replace(entry, statistics=other)), entry.samples),
        ('images', build(entry), []),
    ):
        with pytest.raises(LongTailError) as caught:
            evaluate(metric, samples)
        (path / f'{name}_{rank}.txt').write_text(str(caught.value))


def test_both_ranks_raise(entry, tmp_path):
    """Otherwise one waits for the other."""
    run_on_two_ranks(fail_on_rank, entry, tmp_path)
    for name, words in (('classes', 'class 0 is'), ('images', 'no image')):
        first, second = (
            (tmp_path / f'{name}_{rank}.txt').read_text() for rank in (0, 1)
        )
        assert words in first and first == second


def test_images_without_detections(entry, logged):
    samples = copy.deepcopy(entry.samples)
    for sample in samples:
        found = sample['pred_instances']
        for key in found:
            found[key] = found[key][:0]
    values = evaluate(build(entry), samples)
    if 'ann_file' in entry.config:
        assert 'nothing was detected' in logged()
    assert list(values) == list(evaluate(build(entry), entry.samples))
    for key, value in values.items():
        assert np.isfinite(value)
        if 'classes' not in key:
            assert value in (0, -1), key


def test_no_image(entry):
    with pytest.raises(LongTailError, match='has no image') as error:
        build(entry).evaluate(0)
    assert '\n' not in str(error.value)


def test_class_statistics_from_hook_and_file(entry, tmp_path):
    expected = evaluate(build(entry), entry.samples)
    path = str(tmp_path / 'statistics.json')
    entry.statistics.save(path)
    metric = build(entry, statistics=False, class_statistics=path)
    assert_equal(evaluate(metric, entry.samples), expected)
    metric = build(entry, statistics=False)
    with pytest.raises(LongTailError) as error:
        evaluate(metric, entry.samples[:1])
    message = str(error.value)
    assert 'ClassStatisticsHook' in message and 'class_statistics=' in message
    assert '\n' not in message


def test_integers_are_not_on_a_device(entry):
    """Loggers and JSON take the values as they are."""
    values = evaluate(build(entry), entry.samples).values()
    assert not any(isinstance(v, torch.Tensor | np.generic) for v in values)

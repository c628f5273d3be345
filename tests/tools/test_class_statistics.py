"""The statistics tool as a user runs it, without torch and mmdet."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mmdet_longtail.structures.class_statistics import ClassStatistics

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools' / 'class_statistics.py'


@pytest.fixture(scope='session')
def without_torch(tmp_path_factory):
    """An environment in which torch and OpenMMLab cannot be imported."""
    names = ('torch', 'torchvision', 'mmcv', 'mmengine', 'mmdet', 'lvis')
    folder = tmp_path_factory.mktemp('blocked')
    (folder / 'sitecustomize.py').write_text(
        f'import sys; sys.modules.update(dict.fromkeys({names}))'
    )
    paths = f'{folder}{os.pathsep}{ROOT}'
    return {**os.environ, 'PYTHONPATH': paths, 'OMP_NUM_THREADS': '1'}


@pytest.fixture
def run(without_torch, tmp_path):
    def run(*arguments):
        return subprocess.run(
            [sys.executable, str(TOOL), *map(str, arguments)],
            cwd=tmp_path,
            env=without_torch,
            capture_output=True,
            text=True,
        )

    return run


def content():
    """Twelve images; class c has 2 ** c boxes, one box has no size."""
    boxes = [label for label in range(7) for _ in range(2**label)]
    return {
        'images': [{'id': i} for i in range(12)],
        'categories': [{'id': c, 'name': f'class {c}'} for c in range(8)],
        'annotations': [
            {
                'id': i,
                'image_id': i % 11,
                'category_id': label,
                'bbox': [0, 0, i, 1],
            }
            for i, label in enumerate(boxes)
        ],
    }


@pytest.fixture
def train(tmp_path):
    path = tmp_path / 'train.json'
    path.write_text(json.dumps(content()))
    return path


def table(stdout):
    """Rows of the printed table as a dict."""
    rows = (line.rsplit(None, 1) for line in stdout.splitlines()[1:])
    return {row[0].strip(): row[1] for row in rows if len(row) == 2}


def test_table_and_suggestions(run, train):
    result = run(train)
    assert result.returncode == 0
    assert '1 of 127 (1 no area)' in result.stderr
    printed = table(result.stdout.replace(' %', '%'))
    expected = {
        'images': '12',
        'annotated images': '11',
        'boxes': '126',
        'boxes that do not train': '1',
        'classes': '8',
        'classes without a box': '2',
        'rare classes, 0-10 images': '5',
        'common classes, 11-100 images': '3',
        'frequent classes, over 100': '0',
        'imbalance, most : fewest boxes': '32',
        'Gini coefficient of the boxes': '0.649',
    }
    assert {key: printed.get(key) for key in expected} == expected
    assert '\nimbalanced, but not long-tailed: ' in result.stdout
    assert '0 to 10 images: class 0, class 7, class 1, ' in result.stdout
    assert '\n  no frequency_threshold\n' in result.stdout
    assert '\n  bin_edges = ' in result.stdout
    assert '\n  no oversample_thr\n' in result.stdout
    assert 'tail ratio' not in result.stdout


def long_tailed():
    """Class c is in 2 ** c images of 600; class 9 is in 512."""
    return {
        'images': [
            {'id': i, 'file_name': f'{i}.jpg', 'width': 99, 'height': 99}
            for i in range(600)
        ],
        'categories': [{'id': c, 'name': f'class {c}'} for c in range(10)],
        'annotations': [
            {
                'id': 1000 * c + i,
                'image_id': i,
                'category_id': c,
                'bbox': [0, 0, 9, 9],
                'area': 81,
            }
            for c in range(10)
            for i in range(2**c)
        ],
    }


def test_long_tail_ends_with_the_next_command(run, tmp_path):
    folder = tmp_path / 'my data' / 'annotations'
    folder.mkdir(parents=True)
    for name in ('train.json', 'val.json'):
        (folder / name).write_text(json.dumps(long_tailed()))
    result = run(folder / 'train.json')
    assert (result.returncode, result.stderr) == (0, '')
    text = result.stdout
    assert '\nlong-tailed: most : fewest is 512 by boxes' in text
    assert 'in 0 to 10 images: class 0, class 1, class 2, class 3\n' in text
    for name in ('this data', 'VOC2012', 'COCO', 'LVIS v1'):
        assert f'\n  {name}' in text
    assert re.search(r'\n  frequency_threshold = 0\.\d+\n', text)
    assert re.search(r'\n  oversample_thr = 0\.\d+\n', text)
    assert 'tail ratio' in table(text.replace(' %', '%'))
    command = text.rstrip().splitlines()[-1].strip()
    assert shlex.split(command) == [
        *('longtail', 'make-config', str(tmp_path / 'my data')),
        *('--train', 'annotations/train.json'),
        *('--val', 'annotations/val.json', '--method', 'softmax', '--rfs'),
    ]


def test_method_of_a_federated_set(run, tmp_path):
    federated = long_tailed()
    federated['categories'] += [
        {'id': c, 'name': f'class {c}'} for c in range(10, 100)
    ]
    for image in federated['images']:
        image['neg_category_ids'] = [99]
    path = tmp_path / 'train.json'
    path.write_text(json.dumps(federated))
    assert '--method eql' in run(path).stdout


def test_balanced_data_gets_no_suggestion(run, tmp_path):
    even = long_tailed()
    for i, annotation in enumerate(even['annotations']):
        annotation['category_id'] = i % 3
    path = tmp_path / 'all.json'
    path.write_text(json.dumps(even))
    text = run(path).stdout
    assert '\nnot long-tailed: ' in text
    assert '\nno setting is suggested' in text
    for key in ('frequency_threshold', 'bin_edges', 'oversample_thr'):
        assert key not in text
    assert text.rstrip().endswith('--val VAL.json --method softmax')


def test_json_is_what_the_package_counts(run, train, tmp_path):
    out = tmp_path / 'made' / 'stats.json'
    assert run(train, '--out', out).returncode == 0
    statistics = ClassStatistics.load(out)
    assert statistics == ClassStatistics.from_annotation_file(train)
    assert statistics.source == str(train)

    again = tmp_path / 'again.json'
    result = run(out, '--out', again)
    assert result.returncode == 0
    assert ClassStatistics.load(again) == statistics
    assert 'make-config' not in result.stdout


def test_the_user_chooses_bins_and_threshold(run, train):
    result = run(train, '--bin-edges', '3', 50, '--frequency-threshold', 0.2)
    printed = table(result.stdout)
    assert printed['classes, boxes below 3'] == '3'
    assert printed['classes, boxes 3 to 50'] == '4'
    assert printed['classes, boxes from 50'] == '1'
    assert printed['tail classes, below 0.2'] == '3'


@pytest.mark.parametrize(
    ('suffix', 'start'),
    [('png', b'\x89PNG'), ('svg', b'<?xml'), ('pdf', b'%PDF')],
)
def test_plot(run, train, tmp_path, suffix, start):
    plot = tmp_path / f'counts.{suffix}'
    result = run(train, '--plot', plot)
    assert result.returncode == 0, result.stderr
    assert plot.read_bytes().startswith(start)
    if suffix == 'svg':
        assert 'rare: 5' in plot.read_text()


@pytest.mark.parametrize('threshold', [[], [0], [1], [0.25]])
def test_weight_terms_with_the_classes_on_them(
    run, train, tmp_path, threshold
):
    plot = tmp_path / 'weights.svg'
    options = ['--frequency-threshold', *threshold] if threshold else []
    result = run(train, '--eql', plot, *options)
    assert result.returncode == 0, result.stderr
    text = plot.read_text()
    for name in ('threshold', 'exponential decay', 'Gompertz', 'rare: '):
        assert name in text


def test_plot_of_a_single_box(run, tmp_path):
    train = tmp_path / 'train.json'
    train.write_text(
        json.dumps(
            {
                'images': [{'id': 1}],
                'categories': [{'id': 1, 'name': 'cat'}],
                'annotations': [
                    {
                        'id': 1,
                        'image_id': 1,
                        'category_id': 1,
                        'bbox': [0, 0, 9, 9],
                    }
                ],
            }
        )
    )
    result = run(train, '--plot', tmp_path / 'counts.png')
    assert result.returncode == 0
    # What is missing there does not matter to the counts.
    assert all(s.startswith('warning: ') for s in result.stderr.splitlines())


def without(key):
    return {name: value for name, value in content().items() if name != key}


def with_box(**changes):
    changed = content()
    changed['annotations'][5].update(changes)
    return changed


def twice(key):
    changed = content()
    changed[key].append(changed[key][0])
    return changed


BAD_INPUT = {
    'wrong path': (None, [], 'no such file'),
    'truncated': ('{"images": [', [], 'not valid JSON'),
    'empty': ('', [], 'not valid JSON'),
    'no categories': (without('categories'), [], "'categories' is missing"),
    'no annotations': (without('annotations'), [], "'annotations' is missing"),
    'no images': (without('images'), [], "'images' is missing"),
    'zero images': ({**content(), 'images': []}, [], "'images' is empty"),
    'unknown category': (with_box(category_id=77), [], 'category_id 77'),
    'unknown image': (with_box(image_id=77), [], 'image_id 77'),
    'broken box': (with_box(bbox=[1]), [], 'bbox [1]'),
    'category twice': (twice('categories'), [], 'is there more than once'),
    'image twice': (twice('images'), [], 'is there more than once'),
    'unsorted edges': (content(), ['--bin-edges', 9, 3], 'bin_edges is'),
    'negative edge': (content(), ['--bin-edges', '-1'], 'bin_edges is'),
    'infinite edge': (content(), ['--bin-edges', 'inf'], 'bin_edges is'),
    'large lambda': (
        content(),
        ['--frequency-threshold', '1.5'],
        'frequency_threshold is 1.5',
    ),
    'other statistics': (
        {'format': 'something'},
        [],
        "expected 'format' to be",
    ),
    'unknown picture': (content(), ['--plot', 'a.xyz'], "'xyz' is not"),
    'overwrites its input': (content(), ['--out', 'train.json'], 'is read by'),
    'weights over their input': (
        content(),
        ['--eql', 'train.json'],
        'is read by',
    ),
    'plot over its input': (content(), ['--plot', 'train.json'], 'is read by'),
    'two outputs of one name': (
        content(),
        ['--out', 'a.png', '--plot', './a.png'],
        'two outputs',
    ),
    'out is a folder': (content(), ['--out', '.'], 'cannot be written'),
    'out in a file': (
        content(),
        ['--out', 'train.json/a.json'],
        'cannot be written',
    ),
}


@pytest.mark.parametrize('case', BAD_INPUT)
def test_bad_input(run, tmp_path, case):
    given, arguments, message = BAD_INPUT[case]
    train = tmp_path / 'train.json'
    if given is not None:
        text = given if isinstance(given, str) else json.dumps(given)
        train.write_text(text)
    before = train.read_bytes() if train.exists() else None
    if '--out' not in arguments:
        arguments = ['--out', 'stats.json', *arguments]
    if '--plot' not in arguments and 'train.json' not in arguments:
        arguments = ['--plot', 'plot.png', *arguments]

    result = run(train, *arguments)

    assert result.returncode == 1
    error = result.stderr.splitlines()[-1]
    assert error.startswith('error: ')
    assert message in error
    assert 'Traceback' not in result.stderr
    after = train.read_bytes() if train.exists() else None
    assert after == before
    left = {path.name for path in tmp_path.iterdir()} - {'train.json'}
    assert not left

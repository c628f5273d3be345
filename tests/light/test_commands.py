"""``pip install .`` without torch and mmdet, as `make test-light` has it."""

import importlib
import json
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

import mmdet_longtail

if find_spec('torch') is not None:
    pytest.skip('torch is here', allow_module_level=True)

LONGTAIL = Path(sysconfig.get_path('scripts'), 'longtail')
NAMES = ('few', 'some', 'many')
IMAGE_COUNT = (5, 50, 200)  # rare, common, frequent
SIZE = 64
BOX = [8, 8, 24, 24]
REGISTERED = (
    'mmdet_longtail.models.losses',
    'mmdet_longtail.datasets.samplers',
    'mmdet_longtail.engine.hooks',
    'mmdet_longtail.evaluation.metrics',
)


def write(path, num_images, labels_of_image):
    """Write a COCO file with one box per label of an image."""
    annotations = [
        dict(image_id=image, category_id=label, bbox=BOX)
        for image in range(1, num_images + 1)
        for label in labels_of_image(image)
    ]
    content = dict(
        images=[
            dict(id=i, file_name=f'{i}.png', width=SIZE, height=SIZE)
            for i in range(1, num_images + 1)
        ],
        categories=[dict(id=i, name=x) for i, x in enumerate(NAMES, 1)],
        annotations=[
            dict(annotation, id=i, area=BOX[2] * BOX[3], iscrowd=0)
            for i, annotation in enumerate(annotations, 1)
        ],
    )
    path.write_text(json.dumps(content))
    return content


@pytest.fixture(scope='session')
def folder(tmp_path_factory):
    """Data and the results of two detectors.

    ``whole`` finds each object of the validation set, ``blind`` those of the
    rare class not.
    """
    folder = tmp_path_factory.mktemp('data')
    write(
        folder / 'train.json',
        max(IMAGE_COUNT),
        lambda image: [
            label
            for label, count in enumerate(IMAGE_COUNT, 1)
            if image <= count
        ],
    )
    val = write(folder / 'val.json', 6, lambda image: [1 + image % 3])
    (folder / 'images').mkdir()
    for image in val['images']:
        Image.new('RGB', (SIZE, SIZE)).save(
            folder / 'images' / image['file_name']
        )
    detections = [
        dict(
            image_id=annotation['image_id'],
            category_id=annotation['category_id'],
            bbox=annotation['bbox'],
            score=0.9,
        )
        for annotation in val['annotations']
    ]
    seen = [d for d in detections if NAMES[d['category_id'] - 1] != 'few']
    (folder / 'whole.bbox.json').write_text(json.dumps(detections))
    (folder / 'blind.bbox.json').write_text(json.dumps(seen))
    return folder


def longtail(*arguments, cwd, status=0):
    """Run the installed command and return the finished process."""
    process = subprocess.run(
        [str(LONGTAIL), *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert process.returncode == status, process.stdout + process.stderr
    return process


def modules():
    """Name the modules that must not need torch or mmdet."""
    folder = Path(mmdet_longtail.__file__).parent
    parts = ('structures', 'evaluation/functional', 'visualization', 'cli')
    files = [path for x in parts for path in folder.glob(f'{x}/*.py')]
    names = [
        '.'.join(x.relative_to(folder).with_suffix('').parts) for x in files
    ]
    of_checkpoints = {'structures.checkpoint', 'structures.carried_config'}
    return sorted({*names} - of_checkpoints)


@pytest.mark.parametrize('module', modules())
def test_import(module):
    importlib.import_module(f'mmdet_longtail.{module}')


def error_line(process):
    (line,) = process.stderr.splitlines()
    return line


def test_statistics(folder, tmp_path):
    out = tmp_path / 'statistics.json'
    plot = tmp_path / 'plot.png'
    process = longtail(
        *('statistics', 'train.json', '--out', out, '--plot', plot), cwd=folder
    )
    assert 'few' in process.stdout
    assert plot.stat().st_size
    counts = {
        x['name']: x['image_count']
        for x in json.loads(out.read_text())['classes']
    }
    assert counts == dict(zip(NAMES, IMAGE_COUNT))


@pytest.mark.parametrize('back_end', ['fast', 'reference'])
def test_evaluate(folder, tmp_path, back_end):
    out = tmp_path / 'metrics.json'
    longtail(
        *('evaluate', 'blind.bbox.json', '--ann', 'val.json'),
        *('--train', 'train.json', '--back-end', back_end, '--json', out),
        cwd=folder,
    )
    metrics = json.loads(out.read_text())['metrics']
    ap = {k: metrics[f'frequency_group/bbox_{k}'] for k in ('APr', 'APc')}
    assert ap == {'APr': 0, 'APc': pytest.approx(1)}
    assert metrics['frequency_group/bbox_AP'] == pytest.approx(2 / 3)


def test_compare(folder, tmp_path):
    plot = tmp_path / 'plot.png'
    process = longtail(
        *('compare', 'blind.bbox.json', 'whole.bbox.json'),
        *('--ann', 'val.json', '--train', 'train.json', '--plot', plot),
        cwd=folder,
    )
    assert 'APr' in process.stdout
    assert plot.stat().st_size


def test_show(folder, tmp_path):
    longtail(
        *('show', 'blind.bbox.json', 'whole.bbox.json', '--ann', 'val.json'),
        *('--train', 'train.json', '--images', 'images', '--out', tmp_path),
        cwd=folder,
    )
    assert 'blind' in (tmp_path / 'index.html').read_text()


def test_report(folder, tmp_path):
    out = tmp_path / 'report.html'
    longtail(
        *('report', 'blind.bbox.json', 'whole.bbox.json'),
        *('--ann', 'val.json', '--train', 'train.json'),
        *('--images', 'images', '--out', out),
        cwd=folder,
    )
    page = out.read_text()
    assert 'blind' in page
    assert 'APr' in page


def test_help_of_every_command(tmp_path):
    """A command that needs the stack lists its options without it."""
    commands = [
        line.split()[0]
        for line in longtail('--help', cwd=tmp_path).stdout.splitlines()
        if line.startswith('  ')
    ]
    assert {'statistics', 'train', 'report'} <= set(commands)
    for command in ('statistics', 'evaluate', 'compare', 'show', 'report'):
        text = longtail(command, '--help', cwd=tmp_path).stdout
        assert text.startswith(f'usage: longtail {command} ')


def test_a_command_that_trains_names_what_is_missing(tmp_path):
    line = error_line(longtail('train', 'a.py', cwd=tmp_path, status=1))
    assert line.startswith('error: mmdet_longtail needs mmcv')
    assert 'torch not installed' in line


@pytest.mark.parametrize('module', REGISTERED)
def test_a_registered_name_says_what_is_missing(module, tmp_path):
    process = subprocess.run(
        [sys.executable, '-c', f'import {module}'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 1
    assert 'mmdet not installed' in error_line(process)


def test_a_wrong_path_is_one_line(folder):
    line = error_line(
        longtail('statistics', 'missing.json', cwd=folder, status=1)
    )
    assert line.startswith('error: missing.json: ')


def test_a_wrong_command_names_the_right_one(tmp_path):
    line = error_line(longtail('evalute', cwd=tmp_path, status=1))
    assert 'did you mean evaluate' in line

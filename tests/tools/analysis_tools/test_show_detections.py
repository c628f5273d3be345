"""tools/analysis_tools/show_detections.py: its figures and its errors."""

import json
import re
import shutil

import cv2
import numpy as np
import pytest
from detection_sets import write_json
from pycocotools import mask as mask_utils
from tiny import make_data, write_config
from tool_runs import run_tool

from mmdet_longtail.visualization.detections import KINDS


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    """Data, a trained detector, and results with one find and two faults."""
    folder = tmp_path_factory.mktemp('project')
    data = make_data(folder / 'data')
    config = write_config(folder / 'softmax.py', data)
    config.write_text(
        config.read_text().replace(
            'default_hooks = dict(',
            'default_hooks = dict(class_statistics=dict('
            "type='ClassStatisticsHook'),",
        )
    )
    run_tool('train.py', 'softmax.py', cwd=folder)
    val = json.loads((data / 'val.json').read_text())
    results = [
        {
            'image_id': 1,
            'category_id': id,
            'score': score,
            'bbox': box,
            'segmentation': encode(box),
        }
        for id, score, box in (
            (1, 0.02, val['annotations'][0]['bbox']),
            (1, 0.9, [40, 40, 15, 15]),
            (1, 0.01, [40, 5, 10, 10]),
        )
    ]
    write_json(folder / 'found.bbox.json', results)
    return folder


def encode(box):
    """A box as an uncompressed run-length encoding of an image of 64 x 64."""
    x, y, w, h = box
    mask = np.zeros((64, 64), np.uint8)
    mask[y : y + h, x : x + w] = 1
    encoded = mask_utils.encode(np.asfortranarray(mask))
    return dict(encoded, counts=encoded['counts'].decode())


def show(*detectors, out='shown'):
    return [
        'analysis_tools/show_detections.py',
        *detectors,
        *('--ann', 'data/val.json', '--images', 'data/images', '--out', out),
    ]


def pictures_of(folder):
    """The pictures in the order of the page, which must be all."""
    page = (folder / 'index.html').read_text()
    files = re.findall('<img src="([^"]*)"', page)
    assert sorted([*files, 'index.html']) == sorted(
        path.name for path in folder.iterdir()
    )
    assert files == sorted(files)
    assert 'http' not in page and '<script' not in page
    return [cv2.imread(str(folder / file)) for file in files]


def pixels(picture, color):
    """Count the pixels above the legend of about this color."""
    picture = picture[:-75]
    rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return int((abs(picture[..., ::-1].astype(int) - rgb) < 12).all(2).sum())


def test_detectors_side_by_side(project, tmp_path):
    process = run_tool(
        *show('work_dirs/softmax', 'found.bbox.json', out=tmp_path / 'out'),
        *('--num-images', 1, '--names', 'ours', 'a file'),
        cwd=project,
    )
    assert str(tmp_path / 'out' / 'index.html') in process.stdout
    [picture] = pictures_of(tmp_path / 'out')
    page = (tmp_path / 'out' / 'index.html').read_text()
    assert 'ours, a file' in page
    # The checkpoint brought the counts: a disc is in each training image.
    assert 'disc (4)' in page
    right = picture[:, picture.shape[1] // 2 :]
    for kind in KINDS.values():
        assert pixels(right, kind['edgecolor']) > 100
    assert list(tmp_path.iterdir()) == [tmp_path / 'out']


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_what_is_in_a_picture(project, tmp_path, call_tool, iou_type):
    def shown(name, *options):
        out = tmp_path / name
        done = call_tool(
            *show('found.bbox.json', out=out),
            *('--train', 'data/train.json', '--iou-type', iou_type),
            *options,
            cwd=project,
        )
        assert done.returncode == 0, done.stderr
        return pictures_of(out)

    both = shown('both')
    assert len(both) == 2
    green, red, yellow = [kind['edgecolor'] for kind in KINDS.values()]
    assert [pixels(p, green) > 200 for p in both] == [True, False]
    assert [pixels(p, red) > 200 for p in both] == [True, False]
    assert all(pixels(p, yellow) > 200 for p in both)

    [square] = shown('square', '--classes', 'square', '--num-images', 1)
    assert pixels(square, green) < pixels(both[0], green)
    # The find has a lower score than the fault.
    best = shown('best', '--score-thr', '0.5')
    assert pixels(best[0], green) < pixels(both[0], green)
    assert pixels(best[0], red) > 200


def test_works_without_counts(project, tmp_path, call_tool):
    out = tmp_path / 'out'
    done = call_tool(*show('found.bbox.json', out=out), cwd=project)
    assert done.returncode == 0
    assert '--statistics' in done.stdout
    assert len(pictures_of(out)) == 2


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def of_other_classes(folder):
    edit(folder / 'data/train.json', lambda c: c['categories'].pop())


def of_other_images(folder):
    edit(folder / 'found.bbox.json', lambda r: r[0].update(image_id=77))


def of_another_size(folder):
    cv2.imwrite(
        str(folder / 'data/images/val_1.png'), np.zeros((20, 30, 3), np.uint8)
    )


def unreadable(folder):
    (folder / 'data/images/val_1.png').write_text('no image')


BAD_INPUT = {
    'no result file': (None, ['none.json'], 'none.json: no such file'),
    'no checkpoint': (None, ['none.pth'], 'none.pth: no such checkpoint'),
    'no work directory': (None, ['data'], 'data: no training wrote'),
    'no checkpoint but a config': (None, ['softmax.py'], 'not a checkpoint'),
    'results of other images': (of_other_images, [], 'image_id 77'),
    'names': (None, ['--names', 'a', 'b'], 'expected 1 different names'),
    'number': (None, ['--num-images', '0'], '--num-images is 0, expected'),
    'overlap': (None, ['--iou-thr', '1.5'], '--iou-thr is 1.5, expected'),
    'class': (None, ['--classes', 'disk'], "did you mean 'disc'"),
    'class far off': (None, ['--classes', '?'], "no class '?'"),
    'no image folder': (None, ['--images', 'none'], 'none: no such folder'),
    'images elsewhere': (None, ['--images', 'data'], 'no such image'),
    'image unreadable': (unreadable, [], 'not a readable image'),
    'image of another size': (of_another_size, [], 'is 30 x 20'),
    'no annotations': (None, ['--ann', 'none'], 'none: no such file'),
    'no statistics': (None, ['--statistics', 'none'], 'none: no such file'),
    'other classes': (of_other_classes, ['--train', 'data/train.json'], '3'),
    'no masks': (
        lambda folder: edit(
            folder / 'found.bbox.json', lambda r: r[0].pop('segmentation')
        ),
        ['--iou-type', 'segm'],
        "no 'segmentation'",
    ),
    'checkpoint without masks': (
        None,
        ['work_dirs/softmax', '--iou-type', 'segm'],
        'have no masks',
    ),
}


@pytest.mark.parametrize('name', BAD_INPUT)
def test_bad_input(name, project, tmp_path, call_tool):
    damage, more, expected = BAD_INPUT[name]
    folder = tmp_path / 'project'
    shutil.copytree(project, folder)
    if damage is not None:
        damage(folder)
    detectors = []
    if not more or more[0].startswith('--'):
        detectors = ['found.bbox.json']
    else:
        detectors, more = more[:1], more[1:]
    done = call_tool(*show(*detectors), *more, cwd=folder)
    assert done.returncode == 1, done.stdout
    errors = [
        line for line in done.stderr.splitlines() if line.startswith('error:')
    ]
    assert len(errors) == 1 and 'Traceback' not in done.stderr
    assert done.stderr.endswith(f'{errors[0]}\n')
    assert expected in errors[0]
    assert {p.name for p in folder.iterdir()} == {
        p.name for p in project.iterdir()
    }


def test_nothing_is_overwritten(project, tmp_path, call_tool):
    out = tmp_path / 'out'
    out.mkdir()
    (out / 'mine').touch()
    done = call_tool(*show('found.bbox.json', out=out), cwd=project)
    assert done.returncode == 1
    assert 'exists already' in done.stderr
    assert [path.name for path in out.iterdir()] == ['mine']

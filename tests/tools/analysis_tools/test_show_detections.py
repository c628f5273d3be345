"""tools/analysis_tools/show_detections.py: what it shows, and what it refuses."""

import json
import re
import shutil
from collections import defaultdict

import cv2
import numpy as np
import pytest
from detection_sets import (
    as_results,
    coco_dataset,
    federated_dataset,
    perturbed,
    write_json,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_utils
from tiny import make_data, write_config
from tool_runs import run_tool

from mmdet_longtail.evaluation.functional import Detections, GroundTruth
from mmdet_longtail.visualization.detections import (
    KINDS,
    Panel,
    Shape,
    box_corners,
    choose_drawn,
    choose_images,
    describe,
    draw,
    judge,
    mask_outlines,
)

# ---------------------------------------------- true, false, found, missed


def naive_overlap(a, b, is_crowd):
    """Overlap of two boxes x, y, width, height, or of two masks."""
    if isinstance(a, np.ndarray):
        shared, first, second = (a & b).sum(), a.sum(), b.sum()
    else:
        width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
        height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
        shared = max(width, 0) * max(height, 0)
        first, second = a[2] * a[3], b[2] * b[3]
    together = first if is_crowd else first + second - shared
    return shared / together if together else 0


def naive_judge(dataset, found, iou_threshold, image):
    """Say what becomes of each detection and object of one image.

    Args:
        dataset: Annotations with a 'shape', a box or a mask.
        found: Detections with the same.

    Returns two lists, of 'true', 'false' or None for each detection, and of
    'found', 'missed' or None for each object.
    """
    is_lvis = 'neg_category_ids' in image
    rank = sorted(range(len(found)), key=lambda i: -found[i]['score'])
    if is_lvis:  # It leaves out empty masks.
        rank = [i for i in rank[:300] if np.any(found[i]['shape'])]
    objects = [
        a for a in dataset['annotations'] if a['image_id'] == image['id']
    ]
    verdict = [None] * len(found)
    fate = [None] * len(objects)
    for category in dataset['categories']:
        id = category['id']
        own = [j for j, a in enumerate(objects) if a['category_id'] == id]
        if is_lvis and not own and id not in image['neg_category_ids']:
            continue
        chosen = [i for i in rank if found[i]['category_id'] == id][:100]
        if is_lvis:
            chosen = [i for i in rank if found[i]['category_id'] == id]
        crowds = [j for j in own if not is_lvis and objects[j].get('iscrowd')]
        plain = [j for j in own if j not in crowds]
        for j in plain:
            fate[j] = 'missed'
        for i in chosen:
            best, taken = iou_threshold, None
            for j in plain:
                overlap = naive_overlap(
                    found[i]['shape'], objects[j]['shape'], False
                )
                if fate[j] == 'missed' and overlap >= best:
                    best, taken = overlap, j
            if taken is not None:
                verdict[i], fate[taken] = 'true', 'found'
            elif any(
                naive_overlap(found[i]['shape'], objects[j]['shape'], True)
                >= iou_threshold
                for j in crowds
            ):
                verdict[i] = None
            elif is_lvis and id in image['not_exhaustive_category_ids']:
                verdict[i] = None
            else:
                verdict[i] = 'false'
    return verdict, fate


def as_mask(annotation):
    x, y, w, h = annotation['bbox']
    mask = np.zeros((160, 160), bool)
    mask[y : y + h, x : x + w] = True
    return mask


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
@pytest.mark.parametrize('iou_threshold', [0.5, 0.75])
@pytest.mark.parametrize('make', [federated_dataset, coco_dataset])
def test_verdicts_equal_a_naive_loop(tmp_path, make, iou_threshold, iou_type):
    dataset = make(5, num_images=6, num_classes=12, with_masks=True)
    found = perturbed(dataset, 5, with_masks=True)
    results = as_results(found, iou_type)
    shapes = [m for d in found for m in d['masks']]
    for i, result in enumerate(results):
        result['shape'] = result.get('bbox', shapes[i])
    for a in dataset['annotations']:
        a['shape'] = a['bbox'] if iou_type == 'bbox' else as_mask(a)
    plain = dict(
        dataset,
        annotations=[
            {k: v for k, v in a.items() if k != 'shape'}
            for a in dataset['annotations']
        ],
    )
    ground_truth = GroundTruth.load(
        write_json(tmp_path / 'val.json', plain), (iou_type,)
    )
    images = [4, 0, 5]
    verdicts = judge(
        ground_truth,
        Detections.from_results(results, ground_truth, iou_type, 'here'),
        iou_type,
        iou_threshold,
        images,
    )
    seen = set()
    for i, image in enumerate(ground_truth.images):
        of_image = [r for r in results if r['image_id'] == image['id']]
        verdict, fate = naive_judge(dataset, of_image, iou_threshold, image)
        rows = np.flatnonzero(verdicts.detections.image == i)
        objects = np.flatnonzero(ground_truth.image == i)
        if i not in images:
            assert len(rows) == 0
            assert not verdicts.is_found[objects].any()
            assert not verdicts.is_missed[objects].any()
            continue
        expected = defaultdict(list)
        for result, v in zip(of_image, verdict, strict=True):
            expected[v].append((result['score'], result['category_id']))
        ids = [c['id'] for c in ground_truth.categories]
        for name, chosen in (
            ('true', verdicts.is_true),
            ('false', verdicts.is_false),
        ):
            kept = rows[chosen[rows]]
            score = verdicts.detections.score[kept].tolist()
            label = verdicts.detections.label[kept].tolist()
            ours = [(s, ids[c]) for s, c in zip(score, label, strict=True)]
            assert sorted(ours) == sorted(expected[name])
        for name, chosen in (
            ('found', verdicts.is_found),
            ('missed', verdicts.is_missed),
        ):
            assert [f == name for f in fate] == chosen[objects].tolist()
        seen |= {*verdict, *fate}
    assert seen == {'true', 'false', 'found', 'missed', None}


# ------------------------------------------------------------ what is drawn

SCORES = st.sampled_from([0.0, 0.001, 0.01, 0.3, 0.5, 0.9, 1.0])
FOUND = st.lists(
    st.tuples(
        st.integers(0, 4), SCORES, st.sampled_from(['true', 'false', None])
    ),
    max_size=40,
)


def drawn(found, score_thr=None):
    label, score, verdict = zip(*found, strict=True) if found else ((),) * 3
    return choose_drawn(
        np.array(label, int),
        np.array(score, float),
        np.array([v == 'true' for v in verdict], bool),
        np.array([v == 'false' for v in verdict], bool),
        score_thr,
    ).tolist()


@settings(deadline=None)
@given(FOUND)
def test_what_is_drawn_equals_a_naive_loop(found):
    lowest = {}
    for label, score, verdict in found:
        if verdict == 'true':
            lowest[label] = min(score, lowest.get(label, 2))
    others = [
        i
        for i, (label, _, verdict) in enumerate(found)
        if verdict == 'false' and label not in lowest
    ]
    best = sorted(others, key=lambda i: -found[i][1])[:5]
    expected = [
        verdict == 'true'
        or (verdict == 'false' and label in lowest and score >= lowest[label])
        or i in best
        for i, (label, score, verdict) in enumerate(found)
    ]
    assert drawn(found) == expected


@settings(deadline=None)
@given(FOUND, SCORES)
def test_a_threshold_replaces_the_rule(found, score_thr):
    assert drawn(found, score_thr) == [
        verdict is not None and score >= score_thr
        for _, score, verdict in found
    ]


# ------------------------------------------------------- which images, order


def small_truth(objects, num_classes):
    """A validation set with these lists of labels, one an image."""
    annotations = [
        {
            'image_id': i,
            'category_id': label + 1,
            'bbox': [20 * k, 0, 10, 10],
            'area': 100,
            'iscrowd': int(label < 0),
        }
        for i, labels in enumerate(objects)
        for k, label in enumerate(labels)
    ]
    dataset = {
        'images': [
            {'id': i, 'file_name': f'{i}.png', 'width': 100, 'height': 20}
            for i in range(len(objects))
        ],
        'annotations': annotations,
        'categories': [
            {'id': c + 1, 'name': f'class_{c}'} for c in range(num_classes)
        ],
    }
    return GroundTruth(dataset, 'val.json', 'coco')


def test_rare_classes_take_turns():
    ground_truth = small_truth([[0], [0, 1], [2], [2, 1], [1], [0], []], 3)
    image_count = np.array([500, 7, 3])

    def chosen(number, wanted=(0, 1, 2)):
        return choose_images(
            ground_truth,
            image_count,
            image_count <= 10,
            np.isin(np.arange(3), wanted),
            number,
        )

    # Class 2 shows image 3, which has two rare objects; class 1 has it, too.
    assert chosen(9) == [3, 2, 1, 4, 0, 5]
    assert chosen(1) == [3]
    assert chosen(9, [0]) == [1, 0, 5]
    assert chosen(9, [1]) == [3, 1, 4]


def test_more_rare_classes_than_pictures_are_spread():
    ground_truth = small_truth([[c] for c in range(10)], 10)
    image_count = np.arange(10, 0, -1)
    every = np.ones(10, bool)
    chosen = choose_images(ground_truth, image_count, every, every, 4)
    assert chosen == [9, 6, 3, 0]
    assert image_count[chosen].tolist() == [1, 4, 7, 10]


# -------------------------------------------------------------- the pictures


def test_a_panel_says_what_a_detector_did():
    ground_truth = small_truth([[0, 1, 1]], 3)
    results = [
        {'image_id': 0, 'category_id': id, 'score': score, 'bbox': box}
        for id, score, box in (
            (2, 0.004, [20, 0, 10, 10]),
            (1, 0.8, [50, 5, 10, 10]),
            (2, 0.003, [0, 0, 5, 5]),
            (3, 0.25, [60, 0, 10, 10]),
        )
    ]
    verdicts = judge(
        ground_truth,
        Detections.from_results(results, ground_truth, 'bbox', 'here'),
        'bbox',
        0.5,
        [0],
    )

    def panel(wanted=(True, True, True), score_thr=None):
        return describe(
            'ours',
            ground_truth,
            verdicts,
            'bbox',
            0,
            np.array([False, True, False]),
            np.array(wanted),
            score_thr,
        )

    assert panel().heading == (
        'ours\n1 of 3 objects found, 1 of 2 rare; 2 of 3 false positives drawn'
    )
    assert [(s.kind, s.text, s.is_rare) for s in panel().shapes] == [
        ('true positive', 'class 1 0.004', True),
        ('missed', 'class 0', False),
        ('missed', 'class 1', True),
        ('false positive', 'class 0 0.8', False),
        ('false positive', 'class 2 0.25', False),
    ]
    assert panel().shapes[2].outlines[0].tolist() == (
        box_corners([40, 0, 10, 10]).tolist()
    )
    only = panel((True, False, False))
    assert [s.text for s in only.shapes] == ['class 0', 'class 0 0.8']
    assert len(panel(score_thr=0).shapes) == 6


def test_outlines_run_around_a_mask():
    mask = np.zeros((30, 40), np.uint8)
    mask[5:15, 10:20] = 1
    mask[20:25, 30:35] = 1
    outlines = sorted(mask_outlines(mask), key=lambda o: o.min())
    assert len(outlines) == 2
    assert (outlines[0].min(0), outlines[0].max(0)) == (
        pytest.approx([10.5, 5.5]),
        pytest.approx([19.5, 14.5]),
    )
    assert mask_outlines(np.zeros((30, 40), np.uint8)) == []


def test_labels_stay_inside_and_apart():
    shapes = [
        Shape('missed', [box_corners(box)], 'a rather long $name', True)
        for box in ([90, 0, 9, 9], [91, 1, 9, 9], [0, 95, 5, 5], [5, 95, 5, 5])
    ]
    shapes.append(Shape('true positive', [], 'an empty mask', False))
    figure = draw(np.zeros((100, 100, 3), np.uint8), '', [Panel('', shapes)])
    [axes] = figure.axes
    inside = axes.get_window_extent().padded(1)
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 4
    for i, box in enumerate(boxes):
        assert inside.x0 <= box.x0 and box.x1 <= inside.x1
        assert inside.y0 <= box.y0 and box.y1 <= inside.y1
        assert box.count_overlaps(boxes[:i]) == 0


# ------------------------------------------------------------------ the tool


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


def pixels(picture, colour):
    """How many pixels above the legend have about this colour."""
    picture = picture[:-50]
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
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
    'no work directory': (None, ['data'], 'data: no training left'),
    'no checkpoint but a config': (None, ['softmax.py'], 'not a checkpoint'),
    'results of other images': (of_other_images, [], 'image_id 77'),
    'names': (None, ['--names', 'a', 'b'], 'expected 1 names'),
    'number': (None, ['--num-images', '0'], '--num-images: expected'),
    'overlap': (None, ['--iou-thr', '1.5'], '--iou-thr: expected'),
    'class': (None, ['--classes', 'disk'], "did you mean 'disc'"),
    'class far off': (None, ['--classes', '?'], "no class '?'"),
    'no image folder': (None, ['--images', 'none'], 'none: no such folder'),
    'images elsewhere': (None, ['--images', 'data'], 'no such image'),
    'image unreadable': (unreadable, [], 'not an image'),
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
    assert 'is there already' in done.stderr
    assert [path.name for path in out.iterdir()] == ['mine']

"""An ensemble is what a loop makes of two result files."""

import naive
import numpy as np
import pytest
from masks import error_of, make_mask_data, read, write, write_extra, write_map
from pycocotools import mask as coco_mask
from tiny import CLASS_NAMES, IMAGE_SIZE


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return make_mask_data(tmp_path_factory.mktemp('data') / 'data')


def box_mask(x, y, w, h):
    picture = np.zeros((IMAGE_SIZE, IMAGE_SIZE), np.uint8, order='F')
    picture[y : y + h, x : x + w] = 1
    encoded = coco_mask.encode(picture)
    return dict(encoded, counts=encoded['counts'].decode())


def detections(seed, number, categories, iou_type):
    rng = np.random.default_rng(seed)
    results = []
    for _ in range(number):
        x, y, w, h = (int(v) for v in rng.integers(2, 30, 4))
        shape = dict(bbox=[x, y, w, h])
        if iou_type == 'segm':
            shape = dict(segmentation=box_mask(x, y, w, h))
        results.append(
            dict(
                image_id=int(rng.integers(1, 3)),
                category_id=int(rng.choice(categories)),
                score=float(rng.uniform()),
                box=[x, y, x + w, y + h],
                **shape,
            )
        )
    return results


def naive_ensemble(main, expert, category_of, power_of, limit):
    """Re-score, map, unite, NMS and cut, one detection at a time."""
    rows = []
    for result in main:
        power = power_of.get(result['category_id'], 1)
        rows.append(dict(result, score=result['score'] ** power))
    for result in expert:
        if result['category_id'] in category_of:
            category = category_of[result['category_id']]
            rows.append(dict(result, category_id=category))
    kept = []
    for row in sorted(rows, key=lambda row: -row['score']):
        if all(
            other['image_id'] != row['image_id']
            or other['category_id'] != row['category_id']
            or naive.box_iou(other['box'], row['box']) <= 0.5
            for other in kept
        ):
            kept.append(row)
    found = []
    for image in (1, 2):
        found += [row for row in kept if row['image_id'] == image][:limit]
    return {
        (r['image_id'], r['category_id'], round(r['score'], 9)) for r in found
    }


@pytest.fixture
def ensemble(data, tmp_path, call_tool):
    """Results of a detector and an expert, and counts that make groups."""
    counts = dict(zip(CLASS_NAMES, (500, 50, 5, 3), strict=True))
    write(
        tmp_path / 'stats.json',
        {
            'format': 'mmdet_longtail.class_statistics',
            'version': 1,
            'source': 'train',
            'num_images': 1000,
            'num_annotated_images': 520,
            'classes': [
                dict(name=name, image_count=n, instance_count=n)
                for name, n in counts.items()
            ],
        },
    )
    write_extra(tmp_path / 'expert_ann.json')
    write_map(tmp_path / 'map.csv', [('Frame', 'ring'), ('Coin', 'disc')])
    write(tmp_path / 'main.json', detections(0, 80, [1, 2, 3, 4], 'bbox'))
    write(tmp_path / 'expert.json', detections(1, 60, [1, 2, 3], 'bbox'))

    def run(*options, main='main.json'):
        return call_tool(
            'analysis_tools/ensemble.py', main, 'expert.json',
            '--map', 'map.csv',
            '--expert-ann', 'expert_ann.json', '--ann', data / 'val.json',
            '--out', 'out.json', *options,
        )  # fmt: skip

    return run


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_ensemble_is_what_a_loop_makes(ensemble, tmp_path, data, iou_type):
    main = detections(2, 80, [1, 2, 3, 4], iou_type)
    expert = detections(3, 60, [1, 2, 3], iou_type)
    write(tmp_path / 'main.json', main)
    write(tmp_path / 'expert.json', expert)
    process = ensemble(
        '--statistics', 'stats.json', '--rescore', 'rare=0.5', 'common=0.8',
        '--max-detections', 40, '--iou-type', iou_type,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    found = read(tmp_path / 'out.json')
    expected = naive_ensemble(
        main, expert, {1: 1, 3: 3}, {2: 0.8, 3: 0.5, 4: 0.5}, 40
    )
    assert {
        (r['image_id'], r['category_id'], round(r['score'], 9)) for r in found
    } == expected
    assert len(found) == len(expected)
    key = {'bbox': 'bbox', 'segm': 'segmentation'}[iou_type]
    assert all(key in result for result in found)


def test_ensemble_is_evaluated(ensemble, data, call_tool):
    assert ensemble().returncode == 0
    process = call_tool('evaluate.py', 'out.json', '--ann', data / 'val.json')
    assert process.returncode == 0, process.stderr


def test_ensemble_of_nothing_and_of_a_test_set(ensemble, tmp_path, data):
    write(tmp_path / 'main.json', [])
    write(tmp_path / 'expert.json', [])
    content = read(data / 'val.json')
    del content['annotations']
    test_set = write(tmp_path / 'test.json', content)
    process = ensemble('--ann', test_set)
    assert process.returncode == 0, process.stderr
    assert read(tmp_path / 'out.json') == []


def test_ensemble_names_what_is_wrong(ensemble, tmp_path, data, call_tool):
    line = error_of(ensemble('--rescore', 'rare=0.5'))
    assert '--statistics or --train' in line
    line = error_of(ensemble('--map', 'map.csv', 'map.csv'))
    assert '--map: found 2 files for 1 experts' in line
    line = error_of(ensemble('--out', 'main.json'))
    assert 'main.json: is read by this command' in line
    line = error_of(ensemble('--iou-type', 'segm'))
    assert "has no 'segmentation'" in line
    line = error_of(ensemble('--ann', 'expert_ann.json'))
    assert 'which expert_ann.json does not have' in line
    write(tmp_path / 'expert.json', detections(1, 9, [8], 'bbox'))
    line = error_of(ensemble())
    assert 'has category_id 8' in line and 'expert_ann.json' in line
    write_map(tmp_path / 'map.csv', [('Frame', 'rink')])
    assert "is 'ring' meant?" in error_of(ensemble())
    assert not (tmp_path / 'out.json').exists()
    wrong = ensemble('--rescore', 'rarely=0.5')
    assert wrong.returncode == 2
    assert 'names no group' in wrong.stderr

"""A clone of Clothing Co-Parsing becomes a dataset in LVIS format."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_utils
from scipy.io import savemat
from tool_runs import refused

from mmdet_longtail.apis.clothing_co_parsing import (
    MIN_AREA,
    draw_validation_images,
    find_objects,
)

CONVERT = 'dataset_converters/clothing_co_parsing.py'
CONVERTED = (
    Path(__file__).parents[3] / 'shared' / 'data' / 'ccp_lt' / 'annotations'
)
NAMES = ('null', 'bag', 'bra', 'clogs', 'skin')
HEIGHT, WIDTH = 80, 50


def make_labels(k):
    """Skin in each image, two bags in even ones, a bra in two of ten."""
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[5:35, 5:20] = 4
    if k % 2 == 0:
        labels[40:60, 2:22] = 1
        labels[40:60, 28:48] = 1
    if k in (3, 7):
        labels[62:78, 10:40] = 2
    labels[0:5, 40:48] = 3  # clogs are 3 x 5 pixels after scaling
    return labels


@pytest.fixture
def clone(tmp_path):
    folder = tmp_path / 'clone'
    (folder / 'annotations' / 'pixel-level').mkdir(parents=True)
    (folder / 'photos').mkdir()
    (folder / 'LICENSE').write_text('Apache License')
    cells = np.array(NAMES, dtype=object).reshape(1, -1)
    savemat(folder / 'label_list.mat', dict(label_list=cells))
    for k in range(1, 11):
        write_image(folder, k, make_labels(k))
    return folder


def write_image(folder, k, labels):
    path = folder / 'annotations' / 'pixel-level' / f'{k:04d}.mat'
    savemat(path, dict(groundtruth=labels))
    color = np.full((HEIGHT, WIDTH, 3), 20 * k, np.uint8)
    Image.fromarray(color).save(folder / 'photos' / f'{k:04d}.jpg')


def test_objects_images_and_categories(clone, call_tool, tmp_path):
    process = call_tool(CONVERT, clone, 'out')
    assert process.returncode == 0, process.stderr
    out = tmp_path / 'out'
    assert (out / 'LICENSE').read_text() == 'Apache License'
    split = {
        name: json.loads((out / 'annotations' / f'{name}.json').read_text())
        for name in ('train', 'val')
    }
    ids = {name: [i['id'] for i in c['images']] for name, c in split.items()}
    assert sorted(ids['train'] + ids['val']) == [*range(1, 11)]
    # A fifth of five, of two (none) and of ten images.
    assert sum(i % 2 == 0 for i in ids['val']) == 1
    assert len(ids['val']) == 2
    for content in split.values():
        names = [c['name'] for c in content['categories']]
        assert names == ['bag', 'bra', 'skin']  # of clogs no object is left
        found = Counter()
        for annotation in content['annotations']:
            k, category = annotation['image_id'], annotation['category_id']
            found[k, category] += 1
            mask = mask_utils.decode(annotation['segmentation'])
            assert mask.shape == (48, 30)
            x, y, w, h = annotation['bbox']
            assert mask[y : y + h, x : x + w].sum() == annotation['area']
            assert mask.sum() == annotation['area'] >= MIN_AREA
            if category == 3:
                assert annotation['bbox'] == [3, 3, 9, 18]
        for image in content['images']:
            k = image['id']
            bags, bras = 2 * (k % 2 == 0), int(k in (3, 7))
            expected = {1: bags, 2: bras, 3: 1}
            for category, number in expected.items():
                assert found[k, category] == number
            absent = [c for c, number in expected.items() if not number]
            assert image['neg_category_ids'] == absent
            assert image['not_exhaustive_category_ids'] == []
            photograph = Image.open(out / 'images' / image['file_name'])
            assert photograph.size == (image['width'], image['height'])
            assert photograph.size == (30, 48)
            center = np.asarray(photograph)[24, 15].astype(int)
            assert np.abs(center - 20 * k).max() <= 2
    counts = split['val']['categories']
    for category in counts:
        own = [
            a['image_id']
            for a in split['train']['annotations']
            if a['category_id'] == category['id']
        ]
        assert category['instance_count'] == len(own)
        assert category['image_count'] == len(set(own))
        assert category['frequency'] == 'r'


def naive_objects(labels):
    """Flood each object from its first pixel."""
    labels = labels.copy()
    found = []
    for label in range(1, labels.max() + 1):
        for start in zip(*np.nonzero(labels == label)):
            if labels[start] != label:
                continue
            pixels, todo = set(), [start]
            while todo:
                y, x = todo.pop()
                inside = 0 <= y < len(labels) and 0 <= x < labels.shape[1]
                if inside and labels[y, x] == label:
                    labels[y, x] = 0
                    pixels.add((y, x))
                    for dy in (-1, 0, 1):
                        todo += [(y + dy, x + dx) for dx in (-1, 0, 1)]
            if len(pixels) >= 36:
                found.append((label, pixels))
    return found


@pytest.mark.parametrize('share', [0, 0.6, 0.8, 1])
def test_objects_equal_a_flood_fill(share):
    rng = np.random.default_rng(0)
    labels = rng.integers(1, 3, (60, 40)) * (rng.random((60, 40)) < share)
    labels = np.kron(labels, np.ones((2, 2), int))
    found = [
        (label, {*zip(*np.nonzero(mask))})
        for label, mask in find_objects(labels)
    ]
    assert found == naive_objects(labels)
    assert bool(found) == (share > 0)


def test_the_split_does_not_depend_on_the_order_of_images():
    labels = {k: {k % 7, k % 3 + 10} for k in range(200)}
    val = draw_validation_images(labels)
    again = draw_validation_images(dict(reversed([*labels.items()])))
    assert val == again
    for label in range(7):
        own = [k for k in labels if label in labels[k]]
        assert len(val & {*own}) >= round(0.2 * len(own))


@pytest.mark.skipif(not CONVERTED.exists(), reason='no ../shared/data')
def test_the_split_is_that_of_the_measured_dataset():
    labels, val = {}, set()
    for name in ('train', 'val'):
        content = json.loads((CONVERTED / f'{name}.json').read_text())
        for image in content['images']:
            labels[image['id']] = set()
            if name == 'val':
                val.add(image['id'])
        for annotation in content['annotations']:
            labels[annotation['image_id']].add(annotation['category_id'])
    assert len(val) == 213
    assert draw_validation_images(labels) == val


def without_label_list(clone):
    (clone / 'label_list.mat').unlink()


def without_labels(clone):
    for path in (clone / 'annotations' / 'pixel-level').iterdir():
        path.unlink()


def broken_labels(clone):
    path = clone / 'annotations' / 'pixel-level' / '0004.mat'
    path.write_bytes(path.read_bytes()[:150])


def unnamed_label(clone):
    write_image(clone, 4, make_labels(4) + 1)


def without_photograph(clone):
    (clone / 'photos' / '0004.jpg').unlink()


def other_size(clone):
    Image.new('RGB', (WIDTH, 20)).save(clone / 'photos' / '0004.jpg')


@pytest.mark.parametrize(
    'change, expected',
    [
        (without_label_list, 'label_list.mat: no such file, expected a clone'),
        (without_labels, 'has no annotations/pixel-level/*.mat'),
        (broken_labels, '0004.mat: cannot be read'),
        (unnamed_label, '0004.mat: has label 5, but label_list.mat names 0'),
        (without_photograph, '0004.jpg: cannot be read'),
        (other_size, '0004.jpg: is (50, 20) pixels wide and high'),
    ],
)
def test_mistakes(change, expected, clone, call_tool, tmp_path):
    change(clone)
    assert expected in refused(call_tool(CONVERT, clone, 'out'))
    assert not (tmp_path / 'out' / 'annotations').exists()

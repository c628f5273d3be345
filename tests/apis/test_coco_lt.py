"""COCO-LT is selected or drawn from COCO."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from masks import error_of
from tool_runs import ROOT

from mmdet_longtail.apis.coco_lt import read_totals, share_out
from mmdet_longtail.structures.class_statistics import bin_index_of

MAKE_COCO_LT = 'dataset_converters/make_coco_lt.py'
SELECTION = (
    Path(__file__).parents[3] / 'shared' / 'data' / 'coco_lt_selection.json'
)
TOTALS = dict(
    bin_edges=[3, 8], num_classes=[1, 1, 2], num_instances=[2, 5, 19]
)


def coco(counts, num_images=40):
    """A file with counts[c] boxes of category 10 c, a few in an image."""
    annotations = []
    for c, count in enumerate(counts):
        for k in range(count):
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=100 + (7 * c + k // (1 + c % 3)) % num_images,
                    category_id=10 * c,
                    bbox=[1, 2, 3, 4],
                    area=12,
                    iscrowd=int(k % 11 == 10),
                )
            )
    return dict(
        info=dict(description='some'),
        images=[
            dict(id=100 + i, file_name=f'{i}.jpg', width=9, height=9)
            for i in range(num_images)
        ],
        annotations=annotations,
        categories=[
            dict(id=10 * c, name=f'class {c}') for c in range(len(counts))
        ],
    )


def selection_of(content, kept):
    """Keep the first images of each class, and count by a plain loop."""
    entries = []
    for category, number in zip(content['categories'], kept, strict=True):
        own = [
            a['image_id']
            for a in content['annotations']
            if a['category_id'] == category['id']
        ]
        images = sorted(set(own))[:number]
        entries.append(
            dict(
                category_id=category['id'],
                image_ids=images,
                instance_count=sum(i in images for i in own),
            )
        )
    return dict(categories=entries)


@pytest.fixture
def files(tmp_path):
    content = coco([12, 30, 4, 25])
    selection = selection_of(content, [3, 6, 1, 2])

    def write(**contents):
        contents = (
            dict(coco=content, selection=selection, totals=TOTALS) | contents
        )
        for name, value in contents.items():
            (tmp_path / f'{name}.json').write_text(json.dumps(value))
        return content, selection

    write()
    return write


ARGUMENTS = ('coco.json', 'selection.json', 'out.json')


def test_annotations_of_the_listed_images_are_kept(files, call_tool, tmp_path):
    content, selection = files()
    process = call_tool(MAKE_COCO_LT, *ARGUMENTS)
    assert process.returncode == 0, process.stderr
    expected = []
    for annotation in content['annotations']:
        for entry in selection['categories']:
            if (
                entry['category_id'] == annotation['category_id']
                and annotation['image_id'] in entry['image_ids']
            ):
                expected.append(annotation)
    out = json.loads((tmp_path / 'out.json').read_text())
    assert out['annotations'] == expected
    assert out['categories'] == content['categories']
    used = {a['image_id'] for a in expected}
    assert {i['id'] for i in out['images']} == used
    assert out['info']['description'] == 'COCO-LT, from some'
    total = sum(e['instance_count'] for e in selection['categories'])
    rows = map(str.split, process.stdout.splitlines())
    (row,) = (row for row in rows if row[:1] == ['all'])
    assert row == ['all', '4', str(total), str(total), '+0']


def test_other_numbers_are_refused_and_named(files, call_tool, tmp_path):
    _, selection = files()
    selection['categories'][2]['instance_count'] += 1
    files(selection=selection)
    process = call_tool(MAKE_COCO_LT, *ARGUMENTS)
    message = error_of(process)
    assert '1 of 4 classes have other instance counts' in message
    assert 'class 2' in process.stdout
    assert not (tmp_path / 'out.json').exists()
    process = call_tool(MAKE_COCO_LT, *ARGUMENTS, '--allow-differences')
    assert process.returncode == 0
    assert (tmp_path / 'out.json').exists()


def without_image(content, selection):
    selection['categories'][1]['image_ids'].append(5)


def without_category(content, selection):
    del selection['categories'][3]


def with_category(content, selection):
    selection['categories'].append(
        dict(category_id=7, instance_count=0, image_ids=[])
    )


def without_counts(content, selection):
    del selection['categories'][0]['instance_count']


def twice(content, selection):
    selection['categories'].append(selection['categories'][0])


BAD = {
    'a category twice': (twice, 'selection.json: lists a category twice'),
    'an image of another file': (without_image, 'coco.json: has no image 5'),
    'a category too few': (
        without_category,
        'category 30 is in only one of coco.json and',
    ),
    'a category too many': (
        with_category,
        'category 7 is in only one of coco.json and',
    ),
    'no counts': (without_counts, 'selection.json: not a selection'),
}


@pytest.mark.parametrize('name', BAD)
def test_selection_of_another_file(name, files, call_tool):
    damage, expected = BAD[name]
    content, selection = files()
    damage(content, selection)
    files(selection=selection)
    assert expected in error_of(call_tool(MAKE_COCO_LT, *ARGUMENTS))


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (('none.json', 'selection.json', 'out.json'), 'none.json: no such'),
        (('coco.json', 'none.json', 'out.json'), 'none.json: no such'),
        (('coco.json', 'selection.json', 'coco.json'), 'is read by this'),
        (('coco.json', 'cut.json', 'out.json'), 'not valid JSON'),
        (('coco.json', 'coco.json', 'out.json'), 'not a selection'),
        (('coco.json', 'out.json'), 'has 4 categories, but the totals are'),
        (
            ('coco.json', 'out.json', '--totals', 'selection.json'),
            'expected bin_edges',
        ),
    ],
)
def test_bad_files(arguments, expected, files, call_tool, tmp_path):
    (tmp_path / 'cut.json').write_text('{"categories": [')
    assert expected in error_of(call_tool(MAKE_COCO_LT, *arguments))
    assert not (tmp_path / 'out.json').exists()


def test_a_set_like_it_is_drawn(files, call_tool, tmp_path):
    content, _ = files()
    options = ('coco.json', 'out.json', '--totals', 'totals.json', '--seed')
    drawn = []
    for seed in (0, 0, 1):
        process = call_tool(MAKE_COCO_LT, *options, seed)
        assert process.returncode == 0, process.stderr
        drawn.append((tmp_path / 'out.json').read_text())
    assert drawn[0] == drawn[1] != drawn[2]
    out = json.loads(drawn[0])
    assert 'COCO-LT-like' in out['info']['description']
    assert 'COCO-LT-like' in process.stdout
    counts = Counter(a['category_id'] for a in out['annotations'])
    # Boxes by class: 12, 30, 4, 25, so 4 is the rarest.
    assert 1 <= counts[20] <= 2
    assert 3 <= counts[0] <= 5
    assert counts[10] + counts[30] <= 19
    whole = Counter(
        (a['image_id'], a['category_id']) for a in content['annotations']
    )
    for pair, number in Counter(
        (a['image_id'], a['category_id']) for a in out['annotations']
    ).items():
        assert number == whole[pair]  # images are kept or left as a whole


def test_a_file_with_too_few_says_so(files, call_tool, tmp_path):
    """A class without annotations has none to draw."""
    files(coco=coco([12, 30, 0, 25]))
    process = call_tool(
        MAKE_COCO_LT,
        'coco.json',
        'out.json',
        '--totals',
        'totals.json',
    )
    assert process.returncode == 0, process.stderr
    assert 'coco.json allows 24 of the 26 instances' in process.stdout
    assert '-9' not in process.stdout


@settings(max_examples=200)
@given(
    st.lists(st.integers(0, 10**6), min_size=1, max_size=40),
    st.integers(1, 200),
    st.integers(0, 10**5),
    st.floats(0, 1),
)
def test_instances_are_shared_out_within_the_bin(available, low, width, part):
    available = np.array(available)
    high = low + width
    most = np.minimum(available, high)
    least = np.minimum(low, most)
    total = int(least.sum() + part * (most - least).sum())
    wanted = share_out(available, total, low, high)
    assert (least <= wanted).all() and (wanted <= most).all()
    assert wanted.sum() == total
    # Nobody with more instances gets fewer, but for rounding.
    order = np.argsort(available, kind='stable')
    assert (np.diff(wanted[order]) >= -2).all()


@pytest.mark.skipif(not SELECTION.exists(), reason='no ../shared/data')
def test_the_published_selection_has_the_published_totals():
    entries = json.loads(SELECTION.read_text())['categories']
    totals = read_totals(ROOT / 'configs' / 'coco_lt' / 'totals.json')
    counts = np.array([entry['instance_count'] for entry in entries])
    bins = bin_index_of(counts, totals['bin_edges'])
    assert np.bincount(bins).tolist() == totals['num_classes']
    assert np.bincount(bins, counts).tolist() == totals['num_instances']
    assert len({i for entry in entries for i in entry['image_ids']}) == 99411
    assert counts.sum() == 666493

"""Each fault of an annotation file is found, and named once."""

import copy
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_utils

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.structures.annotation_faults import (
    check_annotations,
    find_annotation_faults,
    find_dropped_boxes,
    mask_fault,
)
from mmdet_longtail.structures.annotations import parse_annotations
from mmdet_longtail.structures.findings import Severity

NOTE, WARNING, ERROR = Severity


def sound():
    """Three images of 60 x 80 pixels, the last one without annotation."""
    return {
        'images': [
            {'id': i, 'file_name': f'{i}.jpg', 'width': 60, 'height': 80}
            for i in (3, 1, 2)
        ],
        'categories': [{'id': c, 'name': f'class {c}'} for c in (7, 5)],
        'annotations': [
            {
                'id': k,
                'image_id': 1 + 2 * (k % 2),
                'category_id': 5 + 2 * (k % 3 // 2),
                'bbox': [10 + k, 10, 20.5, 30],
                'area': 615,
                'iscrowd': 0,
                'segmentation': [[10, 10, 30, 10, 30, 40]],
            }
            for k in range(12)
        ],
    }


def each(section, **changes):
    """Change fields of all entries of a section; ... removes one."""

    def change(content):
        for entry in content[section]:
            entry.update(changes)
            for key in [k for k, v in changes.items() if v is ...]:
                del entry[key]

    return change


def one(section, index=2, **changes):
    """Change fields of one entry of a section."""

    def change(content):
        each(section, **changes)({section: [content[section][index]]})

    return change


def boxes(convert):
    def change(content):
        for annotation in content['annotations']:
            annotation['bbox'] = convert(*annotation['bbox'])

    return change


def replaced(**sections):
    return lambda content: content.update(copy.deepcopy(sections))


def texts(section, key):
    def change(content):
        for entry in content[section]:
            entry[key] = str(entry[key])

    return change


def mixed_ids(content):
    content['images'][2]['id'] = 'two'


RLE = {'size': [80, 60], 'counts': [0, 80 * 60]}

# What is changed, the severity, and the words that carry the fact.
FAULTS = {
    'a list': (None, ERROR, 'found a list'),
    'no categories': (replaced(categories=None), ERROR, "'categories' is mis"),
    'categories are a dict': (
        replaced(categories={'5': 'cat'}),
        ERROR,
        "'categories' is a dict",
    ),
    'annotations are a dict': (
        replaced(annotations={'5': {}}),
        ERROR,
        "'annotations' is a dict",
    ),
    'no category': (replaced(categories=[]), ERROR, "'categories' is empty"),
    'no image': (replaced(images=[]), ERROR, "'images' is empty"),
    'no annotation': (replaced(annotations=[]), ERROR, 'no annotations'),
    'image id': (one('images', id=...), ERROR, "images[2] has no 'id'"),
    'image id null': (one('images', id=None), ERROR, "images[2] has no 'id'"),
    'image id list': (one('images', id=[1]), ERROR, "images[2] has no 'id'"),
    'image id twice': (one('images', id=3), ERROR, 'more than once'),
    'image ids of two types': (mixed_ids, ERROR, "'two'"),
    'image is text': (
        replaced(images=['a.jpg']),
        ERROR,
        'images[0] is not an object',
    ),
    'width': (one('images', width=...), ERROR, "images[2] has no 'width'"),
    'height': (each('images', height=...), ERROR, "images[0] has no 'height'"),
    'width text': (one('images', width='60'), ERROR, "images[2] has width '6"),
    'height NaN': (one('images', height=math.nan), ERROR, 'has height nan'),
    'width 0': (one('images', width=0), WARNING, 'width or height of 0'),
    'file name': (
        each('images', file_name=...),
        ERROR,
        "images[0] has no 'file_name'",
    ),
    'file name null': (one('images', file_name=None), ERROR, "no 'file_name'"),
    'file name is a number': (
        one('images', file_name=5),
        ERROR,
        "images[2] has no 'file_name'",
    ),
    'file name twice': (one('images', file_name='1.jpg'), WARNING, "'1.jpg'"),
    'small images': (
        each('images', width=31, height=90),
        WARNING,
        'min_size=32',
    ),
    'category id': (
        one('categories', 1, id=...),
        ERROR,
        "categories[1] has no 'id'",
    ),
    'category id twice': (one('categories', 1, id=7), ERROR, 'more than once'),
    'category name': (one('categories', 1, name=...), ERROR, "no 'name'"),
    'category name is a number': (
        one('categories', 1, name=5),
        ERROR,
        'has name 5',
    ),
    'category name twice': (
        one('categories', 1, name='class 7'),
        WARNING,
        "2 categories have the name 'class 7'",
    ),
    'annotation is null': (
        replaced(annotations=[None]),
        ERROR,
        'annotations[0] is not an object',
    ),
    'annotation id': (
        each('annotations', id=...),
        ERROR,
        "annotations[0] has no 'id'",
    ),
    'annotation id twice': (one('annotations', id=4), ERROR, 'more than once'),
    'image_id': (one('annotations', image_id=...), ERROR, "no 'image_id'"),
    'unknown image': (one('annotations', image_id=9), ERROR, 'image_id 9'),
    'image_id list': (one('annotations', image_id=[1]), ERROR, 'image_id [1]'),
    'image ids as text': (
        texts('images', 'id'),
        ERROR,
        'differ in their type',
    ),
    'category_id': (
        one('annotations', category_id=...),
        ERROR,
        "no 'category_id'",
    ),
    'unknown category': (
        one('annotations', category_id=6),
        ERROR,
        'category_id 6',
    ),
    'category ids as text': (
        texts('annotations', 'category_id'),
        ERROR,
        'differ in their type',
    ),
    'area': (each('annotations', area=...), ERROR, "no 'area'"),
    'area text': (one('annotations', area='9'), ERROR, "area '9'"),
    'area null': (one('annotations', area=None), ERROR, 'area None'),
    'area NaN': (one('annotations', area=math.nan), ERROR, 'area nan'),
    'area 0': (one('annotations', area=0), WARNING, '1 no area'),
    'all areas 0': (each('annotations', area=0), ERROR, 'none of its 12'),
    'bbox': (one('annotations', bbox=...), ERROR, "no 'bbox'"),
    'bbox of three': (one('annotations', bbox=[1, 2, 3]), ERROR, '[1, 2, 3]'),
    'bbox text': (one('annotations', bbox=['1', 2, 3, 4]), ERROR, "['1'"),
    'bbox null': (one('annotations', bbox=[1, 2, None, 4]), ERROR, 'None'),
    'bbox NaN': (one('annotations', bbox=[math.nan, 2, 3, 4]), ERROR, 'nan'),
    'bbox inf': (one('annotations', bbox=[1, math.inf, 3, 4]), ERROR, 'inf'),
    'bbox dict': (one('annotations', bbox={'x': 1}), ERROR, "{'x': 1}"),
    'bbox outside': (
        one('annotations', bbox=[60, 9, 9, 9]),
        WARNING,
        '1 outside',
    ),
    'bbox normalized': (
        boxes(lambda x, y, w, h: [x / 60, y / 80, w / 60, h / 80]),
        ERROR,
        '12 coordinates of 0 to 1',
    ),
    'bbox corners': (
        boxes(lambda x, y, w, h: [x, y + 30, x + w, y + 30 + h]),
        WARNING,
        '[x1, y1, x2, y2]',
    ),
    'a huge box': (
        one('annotations', bbox=[9, 9, 1e308, 9]),
        WARNING,
        'beyond',
    ),
    'width and height exchanged': (
        boxes(lambda x, y, w, h: [y + 40, x, w, h - 10]),
        WARNING,
        'exchanged',
    ),
    'a box over the border': (
        one('annotations', bbox=[50, 9, 20, 20]),
        NOTE,
        'annotations[2] has bbox [50, 9, 20, 20]',
    ),
    'crowd': (one('annotations', iscrowd=1), NOTE, '1 crowd'),
    'most are crowds': (
        lambda content: [
            annotation.update(iscrowd=1)
            for annotation in content['annotations'][1:]
        ],
        WARNING,
        '11 of 12 (11 crowd or ignored)',
    ),
    'crowd text': (each('annotations', iscrowd='0'), ERROR, "iscrowd '0'"),
    'crowd null': (one('annotations', iscrowd=None), ERROR, 'iscrowd None'),
    'crowd 2': (one('annotations', iscrowd=2), ERROR, 'iscrowd 2'),
    'crowd list': (one('annotations', iscrowd=[0]), ERROR, 'iscrowd [0]'),
    'ignore text': (one('annotations', ignore='no'), ERROR, "ignore 'no'"),
    'a class vanishes': (
        lambda content: [
            annotation.update(area=0)
            for annotation in content['annotations']
            if annotation['category_id'] == 7
        ],
        WARNING,
        "such as 'class 7'",
    ),
    'unused image': (
        lambda content: None,
        NOTE,
        'images[2] has no annotation',
    ),
    'no mask': (
        each('annotations', segmentation=...),
        ERROR,
        "annotations[0] has no 'segmentation' (and 11 more)",
    ),
    'mask null': (one('annotations', segmentation=None), ERROR, 'is None'),
    'mask []': (one('annotations', segmentation=[]), ERROR, 'is []'),
    'mask [[]]': (
        one('annotations', segmentation=[[]]),
        WARNING,
        'without three points',
    ),
    'mask of two points': (
        one('annotations', segmentation=[[1, 2, 3, 4]]),
        WARNING,
        'without three points',
    ),
    'a part of five numbers': (
        one('annotations', segmentation=[[1, 2, 3, 4, 5], [1, 1, 9, 1, 9, 9]]),
        WARNING,
        'without three points',
    ),
    'mask flat': (
        one('annotations', segmentation=[1, 1, 9, 1, 9, 9]),
        ERROR,
        'list of numbers',
    ),
    'mask text': (
        one('annotations', segmentation=[['1', '1', '9', '1', '9', '9']]),
        ERROR,
        "['1'",
    ),
    'mask pairs': (
        one('annotations', segmentation=[[[1, 1], [9, 1], [9, 9]]]),
        ERROR,
        '[[1, 1]',
    ),
    'mask NaN': (
        one('annotations', segmentation=[[1, 1, math.nan, 1, 9, 9]]),
        ERROR,
        'NaN',
    ),
    'mask inf': (
        one('annotations', segmentation=[[1, 1, 9, 1, 9, -math.inf]]),
        ERROR,
        'infinity',
    ),
    'mask far away': (
        one('annotations', segmentation=[[1, 1, 9e9, 1, 9, 9]]),
        ERROR,
        'beyond',
    ),
    'mask list of encodings': (
        one('annotations', segmentation=[RLE]),
        ERROR,
        'list of encodings',
    ),
    'mask is text': (one('annotations', segmentation='x'), ERROR, 'is a str'),
    'encoding of another size': (
        one('annotations', segmentation={'size': [60, 80], 'counts': [4800]}),
        ERROR,
        'size [60, 80]',
    ),
    'encoding without counts': (
        one('annotations', segmentation={'size': [80, 60]}),
        ERROR,
        "'counts'",
    ),
    'encoding too short': (
        one('annotations', segmentation={'size': [80, 60], 'counts': [9, 9]}),
        ERROR,
        'do not encode',
    ),
    'encoding of garbage': (
        one('annotations', segmentation={'size': [80, 60], 'counts': 'abc'}),
        ERROR,
        'do not encode',
    ),
}


def changed(case):
    content = sound()
    change = FAULTS[case][0]
    if change is None:
        return []
    change(content)
    # As read from a file.
    return json.loads(json.dumps(content))


@pytest.mark.parametrize('case', FAULTS)
def test_fault_is_found(case):
    _, severity, words = FAULTS[case]
    findings = find_annotation_faults(
        changed(case), 'train.json', needs_masks=True
    )
    hits = [f for f in findings if words in f.message]
    assert [f.severity for f in hits] == [severity]
    assert findings == sorted(findings, key=lambda f: -f.severity)
    for finding in findings:
        assert finding.message.startswith('train.json: ')
        assert '\n' not in finding.message
        assert finding.severity <= max(severity, NOTE)


def test_a_sound_file_has_no_fault():
    content = sound()
    content['images'].pop()
    for needs_masks in (False, True):
        found = find_annotation_faults(content, '', needs_masks=needs_masks)
        assert found == []
    content['annotations'][0]['segmentation'] = RLE
    content['annotations'][1]['iscrowd'] = False
    del content['annotations'][2]['iscrowd']
    for image in content['images']:
        name = image.pop('file_name')
        image['coco_url'] = f'http://images.cocodataset.org/train2017/{name}'
    assert find_annotation_faults(content, '', needs_masks=True) == []


@pytest.mark.parametrize('case', ['no mask', 'mask null', 'mask [[]]'])
def test_masks_may_be_optional(case):
    content = changed(case)
    options = [{}, {'needs_masks': True, 'optional_masks': True}]
    for option in options:
        found = find_annotation_faults(content, '', **option)
        assert max(f.severity for f in found) == NOTE


def test_a_test_set_may_have_no_annotations():
    content = sound()
    del content['annotations']
    assert find_annotation_faults(content, '', needs_boxes=False) == []
    with pytest.raises(LongTailError, match='annotations'):
        check_annotations(content, 'test.json')


def test_a_known_min_size_is_an_error():
    found = find_annotation_faults(sound(), '', min_size=61)
    assert found[0].severity == ERROR and 'min_size=61' in found[0].message


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 90),
    st.floats(),
    st.text(max_size=2),
    st.lists(
        st.one_of(st.integers(0, 60), st.floats(), st.none()), max_size=6
    ),
    st.dictionaries(st.sampled_from(['id', 'size', 'counts']), st.integers()),
)
paths = st.one_of(
    st.tuples(st.sampled_from(['images', 'annotations', 'categories'])),
    st.tuples(
        st.sampled_from(['images', 'annotations', 'categories']),
        st.integers(0, 1),
    ),
    st.tuples(
        st.sampled_from(['images', 'annotations', 'categories']),
        st.integers(0, 1),
        st.sampled_from(
            'id name width height file_name image_id category_id bbox area '
            'iscrowd ignore segmentation'.split()
        ),
    ),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(paths, values), min_size=1, max_size=3))
def test_no_content_ends_in_a_trace(changes):
    content = sound()
    for path, value in changes:
        node = content
        for key in path[:-1]:
            try:
                node = node[key]
            except (KeyError, IndexError, TypeError):
                node = None
        if isinstance(node, dict):
            node[path[-1]] = value
        elif isinstance(node, list) and len(node) > 1:
            node[1] = value
    found = find_annotation_faults(content, 'x.json', needs_masks=True)
    try:
        annotations = parse_annotations(content, 'x.json')
    except LongTailError:
        assert found[0].severity == ERROR
    else:
        if not len(annotations.class_index):
            assert found[0].severity == ERROR


@given(
    st.lists(st.booleans(), min_size=12, max_size=12),
    st.booleans(),
)
def test_encodings_of_pycocotools_are_sound(pixels, flip):
    pattern = np.array(pixels, np.uint8).reshape(3, 4)
    mask = np.kron(pattern, np.ones((20, 15), np.uint8))
    encoding = mask_utils.encode(np.asfortranarray(mask))
    encoding['counts'] = encoding['counts'].decode()
    assert mask_fault(encoding, (60, 60)) == ('', '')
    assert mask_fault(encoding, (60, 61))[0] == 'broken'
    cut = encoding | {'counts': encoding['counts'][:-1]}
    assert mask_fault(cut, (60, 60))[0] in ('broken', 'missing')


def test_dropped_boxes_of_a_part():
    content = sound()
    assert find_dropped_boxes(parse_annotations(content, '')) == []
    content['annotations'][0]['area'] = 0
    [finding] = find_dropped_boxes(parse_annotations(content, 'a.json'))
    assert finding.severity == WARNING
    assert finding.message.startswith('a.json: ')
    assert '1 of 12 (1 no area)' in finding.message

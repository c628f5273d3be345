"""Class names of two sources, and CSV files that map them."""

from types import SimpleNamespace

import pytest

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.utils.class_names import (
    check_same_classes,
    dataset_classes,
    list_names,
    read_class_map,
)
from mmdet_longtail.utils.tables import write_csv


@pytest.mark.parametrize(
    ('metainfo', 'classes'),
    [
        ({}, None),
        ({'classes': ['a', 'b']}, ('a', 'b')),
        ([{'classes': ['a']}, {'classes': ['b']}], ('a',)),
    ],
)
def test_classes_of_a_dataset(metainfo, classes):
    assert dataset_classes(SimpleNamespace(metainfo=metainfo)) == classes


@pytest.mark.parametrize(
    ('found', 'message'),
    [
        (['bow', 'speaker_(stereo)'], None),
        (['bow', 'speaker_(stero_equipment)'], None),  # a second spelling
        (['bow', 'keyboard'], "class 1 is 'keyboard' in B, but 'speaker_"),
        (['bow'], 'B has 1 classes, but A has 2: way out'),
    ],
)
def test_same_classes(found, message):
    expected = ['bow', 'speaker_(stereo_equipment)']
    if len(found) == 2 and found[1] == 'speaker_(stereo)':
        expected[1] = found[1]
    if message is None:
        check_same_classes(expected, found, 'A', 'B')
    else:
        with pytest.raises(LongTailError) as caught:
            check_same_classes(expected, found, 'A', 'B', 'way out')
        assert message in str(caught.value)


def test_other_digits_and_swapped_names_are_other_classes():
    for expected, found in (
        (['class_11', 'b'], ['class_12', 'b']),
        (['a', 'b'], ['b', 'a']),
    ):
        with pytest.raises(LongTailError, match='class 0 is'):
            check_same_classes(expected, found, 'A', 'B')


def test_position_may_rename():
    check_same_classes(['a', 'b'], ['a', 'x'], 'A', 'B', may_rename=True)
    with pytest.raises(LongTailError, match="class 0 is 'b'"):
        check_same_classes(['a', 'b'], ['b', 'a'], 'A', 'B', may_rename=True)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('extra,main\nkitten,cat\npuppy,dog\n', None),
        ('main,extra\ncat,kitten\ndog,puppy\n', None),
        ('extra,main\n', 'in 0 lines, expected extra and main'),
        ('a,b\nkitten,cat\n', 'expected extra and main'),
        ('extra,main\nkittens,cat\n', "line 2: extra .* is 'kitten' meant"),
        ('extra,main\nkitten,cow\n', "main is 'cow', which is not a class"),
        ('extra,main\nkitten\n', "main is '', which is not a class of M"),
        ('extra,main\nkitten,cat\nkitten,dog\n', 'mapped a second time'),
    ],
)
def test_class_map(tmp_path, text, message):
    path = tmp_path / 'map.csv'
    path.write_text(text)
    extra = SimpleNamespace(class_names=['kitten', 'puppy'], source='E')
    main = SimpleNamespace(class_names=['cat', 'dog'], source='M')
    if message is None:
        main_of = read_class_map(path, extra, main)
        assert main_of == {'kitten': 'cat', 'puppy': 'dog'}
    else:
        with pytest.raises(LongTailError, match=message) as caught:
            read_class_map(path, extra, main)
        assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize('name', ['=1+1', '-x', '+', "'=1", '\ta', '-1', "'a"])
def test_class_map_of_names_that_were_escaped(tmp_path, name):
    """A file of ours has `'=1+1`; one written by hand may have `=1+1`."""
    owner = SimpleNamespace(class_names=[name], source='E')
    path = tmp_path / 'map.csv'
    write_csv(path, {'extra': [name], 'main': [name]})
    assert read_class_map(path, owner, owner) == {name: name}
    path.write_text(f'extra,main\n{name},{name}\n')
    assert read_class_map(path, owner, owner) == {name: name}


def test_names_in_a_list():
    names = ['a\nb', 'x' * 50, *map(str, range(20))]
    assert list_names(names, 3) == f'a b, {"x" * 40}, 0 and 19 more'
    assert list_names(['a', 'b'], 2) == 'a, b'
    assert list_names([]) == ''

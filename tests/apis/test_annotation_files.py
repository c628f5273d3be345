"""Annotation files are cut to their tail and merged."""

import pytest
from masks import error_of, make_mask_data, read, write, write_extra, write_map

KEEP_TAIL = 'dataset_converters/keep_tail.py'
MERGE = 'dataset_converters/merge_annotations.py'


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return make_mask_data(tmp_path_factory.mktemp('data') / 'data')


def test_merged_annotations(data, call_tool, tmp_path):
    write_extra(tmp_path / 'extra.json')
    main = read(data / 'train.json')
    for image in main['images']:
        image |= dict(neg_category_ids=[1], not_exhaustive_category_ids=[])
    write(tmp_path / 'main.json', main)
    rows = [('Tile', 'square'), ('Coin', 'disc')]
    write_map(tmp_path / 'map.csv', rows)
    process = call_tool(
        MERGE, 'main.json', 'extra.json', '--map', 'map.csv',
        '--file-prefix', '../extra/', '--out', 'merged.json',
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert '2 images and 4 boxes of 2 classes added, 1 boxes' in process.stdout
    merged = read(tmp_path / 'merged.json')
    assert merged['categories'] == main['categories']
    images, annotations = merged['images'], merged['annotations']
    assert images[:4] == main['images']
    boxes = len(main['annotations'])
    assert annotations[:boxes] == main['annotations']
    assert images[4:] == [
        dict(
            id=identity,
            width=50,
            height=40,
            file_name=f'../extra/{name}',
            neg_category_ids=[],
            not_exhaustive_category_ids=[],
        )
        for identity, name in ((5, 'e1.jpg'), (6, 'e3.jpg'))
    ]
    added = annotations[boxes:]
    assert [(a['image_id'], a['category_id']) for a in added] == [
        (5, 1),
        (5, 2),
        (6, 2),
        (6, 2),
    ]
    assert all(a['area'] == 50 and 'segmentation' not in a for a in added)
    assert added[-1]['iscrowd'] == 1
    ids = [a['id'] for a in annotations]
    assert len(set(ids)) == len(ids)


def test_images_of_lvis_v1_are_named_by_url(data, call_tool, tmp_path):
    write_extra(tmp_path / 'extra.json')
    main = read(data / 'train.json')
    for image in main['images']:
        image['coco_url'] = 'http://images.cocodataset.org/' + image.pop(
            'file_name'
        )
    write(tmp_path / 'main.json', main)
    write_map(tmp_path / 'map.csv', [('Coin', 'disc')])
    process = call_tool(
        MERGE, 'main.json', 'extra.json', '--map', 'map.csv',
        '--file-prefix', 'x/', '--out', 'merged.json',
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    last = read(tmp_path / 'merged.json')['images'][-1]
    assert last['coco_url'] == 'http://images.cocodataset.org/x/e1.jpg'
    assert 'neg_category_ids' not in last


@pytest.mark.parametrize(
    ('rows', 'columns', 'expected'),
    [
        ([('Coin', 'disk')], None, "line 2: main is 'disk', which is not a "),
        ([('coin', 'disc')], None, "is 'Coin' meant?"),
        ([('Coin', 'disc')], ('extra', 'name'), 'expected extra and main'),
        ([], None, 'in 0 lines'),
        ([('Coin', 'disc'), ('Coin', 'ring')], None, 'a second time'),
        ([('Coin',)], None, "main is ''"),
    ],
)
def test_class_maps_that_do_not_fit(
    rows, columns, expected, data, call_tool, tmp_path
):
    write_extra(tmp_path / 'extra.json')
    write_map(tmp_path / 'map.csv', rows, columns or ('extra', 'main'))
    process = call_tool(
        MERGE, data / 'train.json', 'extra.json',
        '--map', 'map.csv', '--out', 'merged.json',
    )  # fmt: skip
    assert expected in error_of(process)
    assert not (tmp_path / 'merged.json').exists()


def test_files_that_cannot_be_merged(data, call_tool, tmp_path):
    write_map(tmp_path / 'map.csv', [('Coin', 'disc')])

    def merge(extra, class_map='map.csv'):
        return error_of(
            call_tool(
                MERGE, data / 'train.json', extra, '--map',
                class_map, '--out', 'merged.json',
            )
        )  # fmt: skip

    content = read(write_extra(tmp_path / 'extra.json'))
    del content['images'][0]['width']
    write(tmp_path / 'size.json', content)
    assert "image 1 has no 'width'" in merge('size.json')
    assert 'map2.csv: no such file' in merge('extra.json', 'map2.csv')
    content = read(write_extra(tmp_path / 'extra.json'))
    content['images'][0]['file_name'] = 'train_1.png'
    write(tmp_path / 'same.json', content)
    assert "'train_1.png' is an image of" in merge('same.json')
    content['annotations'] = content['annotations'][1:]
    write(tmp_path / 'other.json', content)
    assert 'no box is of a class' in merge('other.json')


def test_the_tail_is_kept(data, call_tool, tmp_path):
    """4, 3, 2 and 1 boxes; a crowd leaves the second class 2."""
    content = read(data / 'train.json')
    crowd = next(a for a in content['annotations'] if a['category_id'] == 2)
    crowd['iscrowd'] = 1
    write(tmp_path / 'train.json', content)
    process = call_tool(
        KEEP_TAIL, 'train.json', 'tail.json', '--fewer-than', 3
    )
    assert process.returncode == 0, process.stderr
    tail = read(tmp_path / 'tail.json')
    assert tail['annotations'] == [
        a for a in content['annotations'] if a['category_id'] > 1
    ]
    assert tail['categories'] == content['categories']
    assert tail['images'] == content['images'][:3]
    assert (
        '3 of 4 classes have fewer than 3 boxes; 6 of 10 annotations and '
        '3 of 4 images are kept'
    ) in process.stdout


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (
            ('train.json', 'tail.json', '--fewer-than', 1),
            'no class has fewer than 1 boxes, the rarest has 1',
        ),
        (('none.json', 'tail.json'), 'none.json: no such file'),
        (('other.json', 'tail.json'), "the list 'categories' is missing"),
        (('train.json', 'train.json'), 'is read by this command'),
    ],
)
def test_no_tail(data, arguments, expected, call_tool, tmp_path):
    write(tmp_path / 'train.json', read(data / 'train.json'))
    write(tmp_path / 'other.json', dict(images=[]))
    assert expected in error_of(call_tool(KEEP_TAIL, *arguments))
    assert not (tmp_path / 'tail.json').exists()

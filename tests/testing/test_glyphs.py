"""The generated set: its promises, its readers, its tool."""

import json
import resource
import shutil
import subprocess
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pycocotools.mask
import pytest
from mmdet.datasets import LVISV1Dataset
from mmdet.registry import DATASETS
from mmengine.registry import init_default_scope
from pycocotools.coco import COCO
from tool_runs import call_tool as call_tool
from tool_runs import command, environment, refused, run_process, run_tool

from mmdet_longtail.compat import import_lvis
from mmdet_longtail.datasets import AnnotationFileDataset
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.testing.drawing import (
    available_characters,
    choose_characters,
    class_name,
    font_files,
    fonts_of_characters,
)
from mmdet_longtail.testing.glyphs import (
    GLYPHS_PER_IMAGE,
    GlyphSettings,
    build_image,
    class_image_count,
    make_glyphs,
    plan_split,
)

C = 20
SETTINGS = GlyphSettings(C, 60, 96, 40.0)

SMALL = (
    *('--out', 'data/glyphs', '--classes', '3', '--images', '4'),
    *('--image-size', '64', '--imbalance', '2', '--seed', '5'),
)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp('glyphs') / 'set'
    assert make_glyphs(root, SETTINGS, num_processes=2)
    return root


@pytest.fixture(scope='module', params=['train', 'val'])
def annotations(request, root):
    return json.loads((root / f'annotations/{request.param}.json').read_text())


def read_files(root):
    return {
        path.relative_to(root): path.read_bytes()
        for path in root.rglob('*')
        if path.is_file()
    }


# -- what is generated ---------------


def test_same_settings_give_the_same_bytes(root, tmp_path):
    make_glyphs(tmp_path / 'again', SETTINGS, num_processes=1)
    assert read_files(tmp_path / 'again') == read_files(root)


def test_another_seed_gives_other_images(root, tmp_path):
    make_glyphs(tmp_path / 'other', GlyphSettings(C, 60, 96, 40.0, 1), 1)
    name = 'images/train/000000.jpg'
    assert (tmp_path / 'other' / name).read_bytes() != (
        root / name
    ).read_bytes()


def test_balanced_set_has_the_same_classes_and_validation_set(root, tmp_path):
    balanced = tmp_path / 'balanced'
    make_glyphs(balanced, GlyphSettings(C, 60, 96, 1.0), 1)
    files, balanced_files = read_files(root), read_files(balanced)
    validation = [name for name in files if 'val' in name.parts]
    assert validation
    for name in validation:
        assert files[name] == balanced_files[name]
    kept, balanced_kept = (
        json.loads((folder / 'annotations/val.json').read_text())
        for folder in (root, balanced)
    )
    assert kept['annotations'] == balanced_kept['annotations']
    statistics = ClassStatistics.from_annotation_file(
        balanced / 'annotations/train.json'
    )
    assert len(set(statistics.image_count)) == 1


def test_default_size_has_every_frequency_group():
    default = GlyphSettings()
    count = class_image_count(default)
    assert count.min() == 1
    assert 300 < count.max() <= default.num_images
    assert (np.diff(count) <= 0).all()
    assert (count <= 10).sum() >= 12
    assert ((count > 10) & (count <= 100)).sum() >= 12
    assert (count > 100).sum() >= 12
    assert count.sum() == pytest.approx(
        GLYPHS_PER_IMAGE * default.num_images, rel=0.01
    )


def test_400_classes_have_the_groups_of_the_documentation():
    """docs/vocabulary.md."""
    count = class_image_count(GlyphSettings(400, 4000))
    groups = np.searchsorted((10, 100), count)
    assert np.bincount(groups).tolist() == [187, 118, 95]


def test_characters_are_chosen_once_and_named_in_ascii():
    for num_classes in (2, 120, len(available_characters())):
        characters = choose_characters(num_classes)
        names = {class_name(char) for char in characters}
        assert len(characters) == len(names) == num_classes
        assert all(name.isascii() and ' ' not in name for name in names)
    assert class_name('a') == 'latin_small_letter_a'


def test_counts_are_those_of_the_training_file(root):
    train = json.loads((root / 'annotations/train.json').read_text())
    instances = Counter(ann['category_id'] for ann in train['annotations'])
    images = Counter(
        category_id
        for _, category_id in {
            (ann['image_id'], ann['category_id'])
            for ann in train['annotations']
        }
    )
    val = json.loads((root / 'annotations/val.json').read_text())
    assert train['categories'] == val['categories']
    for category in train['categories']:
        count = images[category['id']]
        assert category['image_count'] == count >= 1
        assert category['instance_count'] == instances[category['id']]
        assert category['frequency'] == (
            'r' if count <= 10 else 'c' if count <= 100 else 'f'
        )


def test_every_class_has_ten_validation_instances(root):
    val = json.loads((root / 'annotations/val.json').read_text())
    instances = Counter(ann['category_id'] for ann in val['annotations'])
    assert len(instances) == C
    assert min(instances.values()) >= 10


def test_federated_fields_are_consistent(annotations):
    present = {image['id']: set() for image in annotations['images']}
    for annotation in annotations['annotations']:
        present[annotation['image_id']].add(annotation['category_id'])
    for image in annotations['images']:
        negative = set(image['neg_category_ids'])
        assert negative
        assert not negative & present[image['id']]
        assert (
            set(image['not_exhaustive_category_ids']) <= (present[image['id']])
        )


def test_masks_fill_boxes_inside_the_image(annotations):
    images = {image['id']: image for image in annotations['images']}
    for annotation in annotations['annotations']:
        height = images[annotation['image_id']]['height']
        width = images[annotation['image_id']]['width']
        left, top, box_width, box_height = annotation['bbox']
        assert left >= 0 and top >= 0
        assert left + box_width <= width and top + box_height <= height
        points = np.concatenate(annotation['segmentation']).reshape(-1, 2)
        assert points.min(axis=0).tolist() == [left, top]
        assert points.max(axis=0).tolist() == [
            left + box_width,
            top + box_height,
        ]
        mask = pycocotools.mask.merge(
            pycocotools.mask.frPyObjects(
                annotation['segmentation'], height, width
            )
        )
        area = pycocotools.mask.area(mask)
        assert abs(area - annotation['area']) < 0.4 * area + 10


@pytest.mark.parametrize('share', [0.0, 0.02, 0.5, 1.0])
def test_each_image_is_checked_for_a_share_of_the_classes(
    root, tmp_path, share
):
    settings = replace(SETTINGS, checked_share=share)
    for split in ('train', 'val'):
        kept = json.loads((root / f'annotations/{split}.json').read_text())
        for plan, kept_image in zip(
            plan_split(split, settings)[:8], kept['images']
        ):
            _, image, annotations = build_image(plan)
            present = {ann['category_id'] for ann in annotations}
            negative = {*image['neg_category_ids']}
            assert not negative & present
            expected = max(round(share * C), len(present))
            assert len(negative | present) == expected
            assert kept_image.keys() == image.keys()
            assert (
                kept_image['not_exhaustive_category_ids']
                == (image['not_exhaustive_category_ids'])
            )


def test_further_annotation_files_differ_in_the_checked_classes_alone(
    root, tmp_path
):
    settings = replace(SETTINGS, val_checked_shares=(0.5, 1.0))
    make_glyphs(tmp_path / 'set', settings, 1)
    folder = tmp_path / 'set/annotations'
    val = json.loads((folder / 'val.json').read_text())
    assert val == json.loads((root / 'annotations/val.json').read_text())
    plans = plan_split('val', settings)
    for share in (0.5, 1.0):
        path = folder / f'val_checked_{share}.json'
        further = json.loads(path.read_text())
        assert further | dict(images=0) == val | dict(images=0)
        for plan, image, own in zip(plans, further['images'], val['images']):
            negative = {*image['neg_category_ids']}
            assert image | dict(neg_category_ids=0) == own | dict(
                neg_category_ids=0
            )
            present = {label + 1 for label in plan.labels}
            assert not negative & present
            expected = max(round(share * C), len(present))
            assert len(negative | present) == expected


def test_default_images_are_checked_for_a_third_of_the_absent_classes(
    annotations,
):
    present = {image['id']: set() for image in annotations['images']}
    for annotation in annotations['annotations']:
        present[annotation['image_id']].add(annotation['category_id'])
    for image in annotations['images']:
        num_absent = C - len(present[image['id']])
        assert len(image['neg_category_ids']) == num_absent // 3


def test_more_fonts_give_more_characters(tmp_path):
    """A face is a font of its own, whatever its name."""
    folder = Path(matplotlib.get_data_path(), 'fonts', 'ttf')
    fonts = tmp_path / 'fonts' / 'mine'
    fonts.mkdir(parents=True)
    for number in range(4):
        shutil.copy(folder / 'DejaVuSans.ttf', fonts / f'{number}.TTF')
    more = (str(tmp_path / 'fonts'),)
    added = {*available_characters(more)} - {*available_characters()}
    assert added
    assert all(
        any('mine' in path for path in fonts_of_characters(more)[char])
        for char in added
    )
    files = font_files(more)
    assert [file.stem for file in files] == ['0', '1', '2', '3']
    settings = GlyphSettings(3, 4, 64, 2.0, fonts=more)
    assert make_glyphs(tmp_path / 'set', settings, 1)
    assert not make_glyphs(tmp_path / 'set', settings, 1)
    shutil.copy(folder / 'DejaVuSerif.ttf', fonts / '3.TTF')
    fonts_of_characters.cache_clear()
    assert make_glyphs(tmp_path / 'set', settings, 1)


def test_files_that_are_no_fonts_are_named(tmp_path):
    empty = tmp_path / 'empty'
    empty.mkdir()
    broken = tmp_path / 'broken.ttf'
    broken.write_text('no font')
    for path, words in (
        (empty, 'expected a font'),
        (tmp_path / 'none.ttf', 'expected a font'),
        (broken, 'not a readable font'),
    ):
        with pytest.raises(LongTailError, match=words) as error:
            GlyphSettings(fonts=(str(path),))
        assert '\n' not in str(error.value)


# -- who reads it ---------------


def test_coco_and_lvis_read_it(root):
    path = str(root / 'annotations/val.json')
    coco, lvis = COCO(path), import_lvis().LVIS(path)
    assert coco.getCatIds() == lvis.get_cat_ids() == list(range(1, C + 1))
    annotation = coco.anns[1]
    np.testing.assert_array_equal(
        coco.annToMask(annotation), lvis.ann_to_mask(annotation)
    )


@pytest.mark.parametrize('kind', [AnnotationFileDataset, LVISV1Dataset])
def test_mmdet_reads_it(root, kind):
    init_default_scope('mmdet')
    train = json.loads((root / 'annotations/train.json').read_text())
    names = tuple(category['name'] for category in train['categories'])
    named = {}
    if kind is LVISV1Dataset:
        named = dict(metainfo=dict(classes=names))
    dataset = DATASETS.build(
        dict(
            type=kind,
            data_root=str(root),
            ann_file='annotations/train.json',
            data_prefix=dict(img='images/'),
            pipeline=[
                dict(type='LoadImageFromFile'),
                dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
                dict(type='PackDetInputs'),
            ],
            **named,
        )
    )
    assert dataset.metainfo['classes'] == names
    assert len(dataset) == SETTINGS.num_images
    assert sum(
        len(dataset.get_data_info(i)['instances']) for i in range(len(dataset))
    ) == len(train['annotations'])
    sample = dataset[0]
    instances = sample['data_samples'].gt_instances
    assert sample['inputs'].shape == (3, 96, 96)
    assert len(instances.masks) == len(instances.labels) > 0


def test_dataset_uses_only_the_classes_that_metainfo_names(root):
    train = json.loads((root / 'annotations/train.json').read_text())
    name = train['categories'][3]['name']
    dataset = AnnotationFileDataset(
        data_root=str(root),
        ann_file='annotations/train.json',
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=(name,)),
    )
    assert dataset.metainfo['classes'] == (name,)
    labels = [
        instance['bbox_label']
        for i in range(len(dataset))
        for instance in dataset.get_data_info(i)['instances']
    ]
    assert labels == [0] * train['categories'][3]['instance_count']


def test_dataset_reads_files_that_have_only_a_url(root, tmp_path):
    content = json.loads((root / 'annotations/val.json').read_text())
    for image in content['images']:
        name = image.pop('file_name')
        image['coco_url'] = f'http://images.cocodataset.org/{name}'
    path = tmp_path / 'val.json'
    path.write_text(json.dumps(content))
    dataset = AnnotationFileDataset(
        ann_file=str(path), data_prefix=dict(img=str(root / 'images'))
    )
    expected = root / 'images' / 'val' / '000000.jpg'
    assert dataset.get_data_info(0)['img_path'] == str(expected)


# -- the folder and the tool ---------------


def test_finished_set_is_kept_and_another_one_replaces_it(tmp_path):
    root = tmp_path / 'set'
    small = GlyphSettings(3, 4, 64, 2.0)
    assert make_glyphs(root, small, 1)
    before = read_files(root)
    assert not make_glyphs(root, small, 1)
    assert read_files(root) == before
    assert make_glyphs(root, GlyphSettings(3, 5, 64, 2.0), 1)
    assert len(list((root / 'images/train').iterdir())) == 5
    assert [path.name for path in tmp_path.iterdir()] == ['set']


def test_interrupted_set_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(plan):
        raise KeyboardInterrupt

    monkeypatch.setattr('mmdet_longtail.testing.glyphs.build_image', interrupt)
    with pytest.raises(KeyboardInterrupt):
        make_glyphs(tmp_path / 'set', GlyphSettings(3, 4, 64, 2.0), 1)
    assert not list(tmp_path.iterdir())


def limit_files():
    """Let no file grow as large as an image."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    process = subprocess.run(
        command('dataset_converters/make_glyphs.py', *SMALL),
        cwd=tmp_path,
        env=environment(),
        preexec_fn=limit_files,
        capture_output=True,
        text=True,
    )
    assert 'cannot be written (File too large)' in refused(process)
    assert not [p for p in tmp_path.rglob('*') if p.name != 'data']


def test_a_killed_tool_leaves_no_workers(tmp_path):
    process = subprocess.Popen(
        command('dataset_converters/make_glyphs.py', '--processes', 2),
        cwd=tmp_path,
        env=environment(),
    )
    path = Path(f'/proc/{process.pid}/task/{process.pid}/children')
    while len(workers := path.read_text().split()) < 2:
        time.sleep(0.01)
        assert process.poll() is None
    process.kill()
    process.wait()
    until = time.monotonic() + 20
    while any(map(is_running, workers)) and time.monotonic() < until:
        time.sleep(0.01)
    assert not any(map(is_running, workers))


def is_running(process):
    """Check that a process is neither gone nor a zombie."""
    try:
        status = Path(f'/proc/{process}/stat').read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(')')[2].split()[0] not in 'ZX'


def test_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / 'mine.txt').write_text('precious')
    with pytest.raises(LongTailError, match='found other files'):
        make_glyphs(tmp_path, GlyphSettings(3, 4, 64, 2.0), 1)
    assert [path.name for path in tmp_path.iterdir()] == ['mine.txt']


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        (dict(num_classes=1), 'num_classes is 1, expected'),
        (dict(num_classes=10**6), 'num_classes is 1000000'),
        (dict(num_images=3), r'num_images is 3, expected a number in \[15'),
        (dict(image_size=32), 'image_size is 32'),
        (dict(imbalance=0.5), 'imbalance is 0.5'),
        (dict(imbalance=float('nan')), 'imbalance is nan'),
        (dict(seed=-1), 'seed is -1'),
        (dict(checked_share=1.1), 'checked_share is 1.1'),
        (dict(val_checked_shares=(1, -0.1)), 'val_checked_shares is -0.1'),
    ],
)
def test_settings_out_of_range_are_named(values, message):
    with pytest.raises(LongTailError, match=message):
        GlyphSettings(**values)


def test_tool_writes_once(tmp_path):
    arguments = (
        'dataset_converters/make_glyphs.py',
        *SMALL,
    )
    assert 'written' in run_tool(*arguments, cwd=tmp_path).stdout
    again = run_tool(*arguments, '--processes', '1', cwd=tmp_path)
    assert 'already there' in again.stdout
    assert (tmp_path / 'data/glyphs/annotations/train.json').is_file()


@pytest.mark.parametrize(
    'arguments',
    [('--imbalance', '0'), ('--out', '/proc/glyphs')],
)
def test_tool_says_what_is_wrong_in_one_line(call_tool, tmp_path, arguments):
    result = call_tool('dataset_converters/make_glyphs.py', *arguments)
    assert result.returncode == 1
    assert result.stderr.startswith('error: ')
    assert result.stderr.count('\n') == 1
    assert not list(tmp_path.iterdir())


def test_process_of_the_tool_fails_with_one_line(tmp_path):
    process = run_process(
        command('dataset_converters/make_glyphs.py', '--classes', 1), tmp_path
    )
    assert process.returncode == 1
    assert process.stderr.startswith('error: num_classes is 1, expected')
    assert process.stderr.count('\n') == 1
    assert not list(tmp_path.iterdir())

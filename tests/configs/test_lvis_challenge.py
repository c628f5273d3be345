"""The recipe of the LVIS challenge 2019."""

import cv2
import numpy as np
import pytest
import torch
from masks import make_mask_data, write_extra, write_map
from mmdet.registry import TRANSFORMS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from tool_runs import ROOT


@pytest.fixture(scope='module', autouse=True)
def mmdet_scope():
    init_default_scope('mmdet')


CONFIGS = ROOT / 'configs' / 'lvis_challenge_2019'


RECIPE = """
_base_ = './masks.py'
default_hooks = dict(class_statistics=dict(type='ClassStatisticsHook'))
train_dataloader = dict(dataset=dict(
    type='IgnoreRegionsAnnotationFileDataset', ann_file='merged.json',
    ignore_file='train.json', ignore_iou=1.0))
assigner = dict(type='BackgroundIgnoringAssigner')
loss_cls = dict(_delete_=True, type='EqualizationLoss', num_classes=4)
model = dict(
    roi_head=dict(bbox_head=dict(loss_cls=loss_cls)),
    train_cfg=dict(rpn=dict(assigner=assigner), rcnn=dict(assigner=assigner)))
val_cfg, val_dataloader, val_evaluator = None, None, None
"""


def test_the_parts_work_together(call_tool, tmp_path):
    """EQL, ignored regions, images with boxes only, and views of them."""
    folder = make_mask_data(tmp_path / 'data')
    write_extra(folder / 'extra.json')
    for k in (1, 3):
        picture = np.full((40, 50, 3), 90, np.uint8)
        cv2.imwrite(str(folder / 'images' / f'e{k}.jpg'), picture)
    write_map(folder / 'map.csv', [('Coin', 'disc'), ('Tile', 'square')])
    (folder / 'recipe.py').write_text(RECIPE)
    for command in (
        'dataset_converters/merge_annotations.py train.json extra.json '
        '--map map.csv --out merged.json',
        'train.py recipe.py --work-dir work',
        'test.py recipe.py work/epoch_1.pth --tta --out found',
    ):
        process = call_tool(*command.split(), cwd=folder)
        assert process.returncode == 0, process.stdout + process.stderr
    counts = torch.load(folder / 'work' / 'epoch_1.pth', weights_only=True)
    disc = counts['class_statistics']['classes'][0]
    assert (disc['image_count'], disc['instance_count']) == (5, 5)
    assert (folder / 'found.segm.json').exists()


def test_views_of_the_configs():
    """600 to 1400, step 200, with flips; box testing takes masks at 800."""
    [path] = CONFIGS.glob('*_box-views_*.py')
    config = Config.fromfile(path)
    pipeline = TRANSFORMS.build(config.tta_pipeline[1])
    picture = np.zeros((30, 40, 3), np.uint8)
    views = pipeline(
        dict(img=picture, ori_shape=(30, 40), img_id=0, img_path='')
    )['data_samples']
    found = [(min(view.img_shape), view.flip) for view in views]
    assert found == [
        (side, flip)
        for side in (600, 800, 1000, 1200, 1400)
        for flip in (False, True)
    ]
    [chosen] = config.tta_model.mask_views
    assert found[chosen] == (800, False)
    [path] = CONFIGS.glob('*_mask-views_*.py')
    assert Config.fromfile(path).tta_model.mask_views is None


def test_readme_names_every_config():
    text = (CONFIGS / 'README.md').read_text()
    for path in CONFIGS.glob('*.py'):
        assert path.name in text or path.name.partition('coco')[2] in text

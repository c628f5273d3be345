"""The tiny detector with a mask head, and files for data with and without."""

import copy
import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from tiny import make_data, write_config
from torch import nn

CONFIG = """
_base_ = './tiny.py'
model = dict(
    type='MaskRCNN',
    roi_head=dict(
        mask_roi_extractor=dict(
            type='SingleRoIExtractor',
            roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=1),
            out_channels=16,
            featmap_strides=[4, 8, 16, 32]),
        mask_head=dict(
            type='OptionalMaskFCNMaskHead', num_convs=1, in_channels=16,
            conv_out_channels=8, num_classes=4,
            loss_mask=dict(type='CrossEntropyLoss', use_mask=True))),
    train_cfg=dict(rcnn=dict(mask_size=14)),
    test_cfg=dict(rcnn=dict(mask_thr_binary=0.5)))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadOptionalMasks', with_bbox=True),
    dict(type='RandomFlip', prob=1.0),
    dict(type='Resize', scale=(96, 96)),
    dict(type='PackDetInputs')]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
test_evaluator = dict(
    type='CocoMetric', metric=['bbox', 'segm'],
    ann_file=_base_.val_evaluator.ann_file)
tta_model = dict(type='MaskTTAModel')
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale=(s, s), keep_ratio=True)
             for s in (64, 96)],
            [dict(type='RandomFlip', prob=0.0),
             dict(type='RandomFlip', prob=1.0)],
            [dict(type='PackDetInputs',
                  meta_keys=('img_id', 'ori_shape', 'img_shape',
                             'scale_factor', 'flip', 'flip_direction'))]])]
"""


def make_mask_data(folder: Path) -> Path:
    """Write the tiny data, tiny.py, and masks.py with a mask head."""
    make_data(folder)
    write_config(folder / 'tiny.py', folder)
    (folder / 'masks.py').write_text(CONFIG)
    return folder


def build_mask_detector(folder: Path) -> nn.Module:
    """Build the detector of masks.py, which finds something untrained."""
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(folder / 'masks.py').model)
    model.init_weights()
    # With the usual weights, all scores, boxes and masks would be the same.
    for head in (model.roi_head.bbox_head, model.roi_head.mask_head):
        for parameter in head.parameters():
            nn.init.normal_(parameter, std=0.3)
    return model.eval()


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def write_map(
    path: Path,
    rows: Sequence[Sequence[str]],
    columns: Sequence[str] = ('extra', 'main'),
) -> Path:
    with open(path, 'w', newline='') as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def without_masks(content: dict, indices: Iterable[int]) -> dict:
    """Remove the masks of some annotations."""
    content = copy.deepcopy(content)
    for index in indices:
        del content['annotations'][index]['segmentation']
    return content


def first_batch(folder: Path, ann_file: str) -> dict:
    """Load the first two training images with another annotation file."""
    config = Config.fromfile(folder / 'masks.py')
    config.train_dataloader.dataset.ann_file = ann_file
    dataset = DATASETS.build(config.train_dataloader.dataset)
    return pseudo_collate([dataset[0], dataset[1]])


def write_extra(path: Path) -> Path:
    """Write three images of 50 x 40, and boxes without masks."""
    images = [
        dict(id=k, file_name=f'e{k}.jpg', width=50, height=40)
        for k in (1, 2, 3)
    ]
    boxes = [(1, 1), (1, 2), (2, 3), (3, 2), (3, 2)]
    annotations = [
        dict(id=k, image_id=image, category_id=category, bbox=[k, 2, 10, 5])
        for k, (image, category) in enumerate(boxes)
    ]
    annotations[-1]['iscrowd'] = 1
    categories = [
        dict(id=k, name=name)
        for k, name in enumerate(('Coin', 'Tile', 'Frame'), 1)
    ]
    return write(
        path,
        dict(images=images, annotations=annotations, categories=categories),
    )


def error_of(process: CompletedProcess[str]) -> str:
    """Return the one line with which a tool failed."""
    assert process.returncode == 1, process.stdout + process.stderr
    assert process.stderr.startswith('error: ')
    assert process.stderr.count('\n') == 1
    return process.stderr

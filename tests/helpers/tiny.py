"""A detection set and a detector that are small enough for any test."""

import json
from pathlib import Path

import cv2
import numpy as np

IMAGE_SIZE = 64
CLASS_NAMES = ('disc', 'square', 'ring', 'cross')

CONFIG = """
custom_imports = dict(imports=['mmdet_longtail'], allow_failed_imports=False)
default_scope = 'mmdet'
default_hooks = dict(
    checkpoint=dict(type='CheckpointHook', interval=1),
    logger=dict(type='LoggerHook', interval=1),
    visualization=dict(type='DetVisualizationHook'))
visualizer = dict(
    type='DetLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
model = dict(
    type='FasterRCNN',
    data_preprocessor=dict(
        type='DetDataPreprocessor', mean=[127.] * 3, std=[60.] * 3),
    backbone=dict(type='ResNet', depth=18, base_channels=8),
    neck=dict(
        type='FPN', in_channels=[8, 16, 32, 64], out_channels=16, num_outs=4),
    rpn_head=dict(
        type='RPNHead',
        in_channels=16,
        feat_channels=16,
        anchor_generator=dict(
            type='AnchorGenerator', scales=[4], ratios=[1.],
            strides=[4, 8, 16, 32])),
    roi_head=dict(
        type='StandardRoIHead',
        bbox_roi_extractor=dict(
            type='SingleRoIExtractor',
            roi_layer=dict(type='RoIAlign', output_size=3, sampling_ratio=1),
            out_channels=16,
            featmap_strides=[4, 8, 16, 32]),
        bbox_head=dict(
            type='Shared2FCBBoxHead',
            in_channels=16,
            fc_out_channels=16,
            roi_feat_size=3,
            num_classes={num_classes},
            loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False))),
    train_cfg=dict(
        rpn=dict(
            assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.7,
                          neg_iou_thr=0.3, min_pos_iou=0.3),
            sampler=dict(type='RandomSampler', num=16, pos_fraction=0.5,
                         add_gt_as_proposals=False),
            allowed_border=-1,
            pos_weight=-1,
            debug=False),
        rpn_proposal=dict(
            nms_pre=20, max_per_img=10, min_bbox_size=0,
            nms=dict(type='nms', iou_threshold=0.7)),
        rcnn=dict(
            assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5,
                          neg_iou_thr=0.5, min_pos_iou=0.5,
                          match_low_quality=False),
            sampler=dict(type='RandomSampler', num=16, pos_fraction=0.5),
            pos_weight=-1,
            debug=False)),
    test_cfg=dict(
        rpn=dict(
            nms_pre=20, max_per_img=10, min_bbox_size=0,
            nms=dict(type='nms', iou_threshold=0.7)),
        rcnn=dict(score_thr=1e-4, max_per_img=300,
                  nms=dict(type='nms', iou_threshold=0.5))))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(64, 64)),
    dict(type='PackDetInputs')]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(64, 64)),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs',
         meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape',
                    'scale_factor'))]
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='AnnotationFileDataset',
        data_root={data_root!r},
        ann_file='train.json',
        data_prefix=dict(img='images/'),
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='AnnotationFileDataset',
        data_root={data_root!r},
        ann_file='val.json',
        data_prefix=dict(img='images/'),
        test_mode=True,
        pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='CocoMetric', ann_file={data_root!r} + '/val.json')
test_evaluator = val_evaluator
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.001))
randomness = dict(seed=0)
"""


def make_data(
    folder: Path,
    num_train: int = 4,
    num_val: int = 2,
    class_names: tuple[str, ...] = CLASS_NAMES,
) -> Path:
    """Write images of bright boxes, and train.json and val.json beside them.

    Class c is in one training image more than class c + 1, as long as there
    are images; the last class is in one.
    """
    rng = np.random.default_rng(0)
    (folder / 'images').mkdir(parents=True)
    for split, num_images in (('train', num_train), ('val', num_val)):
        images: list[dict] = []
        annotations: list[dict] = []
        for index in range(num_images):
            noise = (IMAGE_SIZE, IMAGE_SIZE, 3)
            picture = rng.integers(0, 80, noise, np.uint8)
            for label in range(len(class_names)):
                if label > 0 and label > num_images - 1 - index:
                    continue
                x, y = (8 + 24 * (label % 2), 8 + 24 * (label // 2 % 2))
                picture[y : y + 20, x : x + 20] = 80 + 40 * label % 160
                polygon = [x, y, x + 20, y, x + 20, y + 20, x, y + 20]
                annotations.append(
                    {
                        'id': len(annotations) + 1,
                        'image_id': index + 1,
                        'category_id': label + 1,
                        'bbox': [x, y, 20, 20],
                        'area': 400,
                        'iscrowd': 0,
                        'segmentation': [polygon],
                    }
                )
            name = f'{split}_{index}.png'
            cv2.imwrite(str(folder / 'images' / name), picture)
            images.append(
                {
                    'id': index + 1,
                    'file_name': name,
                    'width': IMAGE_SIZE,
                    'height': IMAGE_SIZE,
                }
            )
        categories = [
            {'id': label + 1, 'name': name}
            for label, name in enumerate(class_names)
        ]
        content = {
            'images': images,
            'annotations': annotations,
            'categories': categories,
        }
        (folder / f'{split}.json').write_text(json.dumps(content))
    return folder


def write_config(
    path: Path, data_root: Path, num_classes: int = len(CLASS_NAMES)
) -> Path:
    """Write a config that trains the small detector on that data."""
    text = CONFIG.replace('{num_classes}', str(num_classes))
    path.write_text(text.replace('{data_root!r}', repr(str(data_root))))
    return path


SECOND_STAGE = """
_base_ = 'softmax.py'
base_config = 'softmax.py'
load_from = 'work_dirs/softmax/epoch_1.pth'
default_hooks = dict(
    class_statistics=dict(type='ClassStatisticsHook'),
    train_only=dict(
        type='TrainOnlyHook', trainable=['roi_head.bbox_head.fc_cls']))
model = dict(roi_head=dict(bbox_head=dict(loss_cls=dict(
    _delete_=True, type='BalancedGroupSoftmaxLoss', num_classes=4,
    bin_edges=(2, 3)))))
"""


def write_two_stages(folder: Path) -> Path:
    """Write data, softmax.py and its second stage, bags.py."""
    make_data(folder / 'data')
    write_config(folder / 'softmax.py', folder / 'data')
    (folder / 'bags.py').write_text(SECOND_STAGE)
    return folder

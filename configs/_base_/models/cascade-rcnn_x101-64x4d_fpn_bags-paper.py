# BAGS's released configs; box losses and proposals are mmdet's own.
_base_ = 'mmdet::_base_/models/cascade-rcnn_r50_fpn.py'
bbox_head = [dict(head, type='LongTailShared2FCBBoxHead', num_classes=1230) for head in _base_.model.roi_head.bbox_head]
model = dict(
    backbone=dict(
        type='ResNeXt', depth=101, groups=64, base_width=4, init_cfg=dict(checkpoint='open-mmlab://resnext101_64x4d')
    ),
    roi_head=dict(bbox_head=bbox_head),
    test_cfg=dict(rcnn=dict(score_thr=0.001, max_per_img=300)),
)

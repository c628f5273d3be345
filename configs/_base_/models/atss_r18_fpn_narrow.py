# A small ATSS to train from scratch on a CPU: the backbone and FPN of the small
# Faster R-CNN beside it, anchors for images of 128 px.
_base_ = 'faster-rcnn_r18_fpn_narrow.py'
model = dict(
    _delete_=True,
    type='ATSS',
    data_preprocessor=_base_.model.data_preprocessor,
    backbone=_base_.model.backbone,
    neck=_base_.model.neck,
    bbox_head=dict(
        type='ATSSHead',
        num_classes=120,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        anchor_generator=dict(type='AnchorGenerator', ratios=[1.0], scales=[5], strides=[4, 8, 16, 32]),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_stds=(0.1, 0.1, 0.2, 0.2)),
        loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
        loss_centerness=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0),
    ),
    train_cfg=dict(assigner=dict(type='ATSSAssigner', topk=9), allowed_border=-1, pos_weight=-1, debug=False),
    test_cfg=dict(
        nms_pre=1000, min_bbox_size=0, score_thr=1e-4, nms=dict(type='nms', iou_threshold=0.5), max_per_img=300
    ),
)

# BAGS's released configs, but for the layers that mmdet has changed since.
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'
model = dict(
    rpn_head=dict(loss_bbox=dict(_delete_=True, type='SmoothL1Loss', beta=1 / 9)),
    roi_head=dict(
        bbox_head=dict(
            type='LongTailShared2FCBBoxHead',
            num_classes=1230,
            loss_bbox=dict(_delete_=True, type='SmoothL1Loss', beta=1.0),
        ),
        mask_head=dict(num_classes=1230),
    ),
    train_cfg=dict(rpn=dict(allowed_border=0), rpn_proposal=dict(max_per_img=2000)),
    test_cfg=dict(rcnn=dict(score_thr=0.05, max_per_img=100)),
)

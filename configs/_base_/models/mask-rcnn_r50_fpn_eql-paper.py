# Tan et al., section 4.2; post-NMS proposals and box losses are what their
# author names as the paper's beside Detectron2's.
_base_ = 'mask-rcnn_r50_fpn_lvis-v0.5.py'
model = dict(
    rpn_head=dict(loss_bbox=dict(_delete_=True, type='SmoothL1Loss', beta=1 / 9)),
    roi_head=dict(
        bbox_head=dict(loss_bbox=dict(_delete_=True, type='SmoothL1Loss', beta=1.0)),
        mask_head=dict(class_agnostic=True),
    ),
    train_cfg=dict(rpn_proposal=dict(max_per_img=2000)),
    test_cfg=dict(rcnn=dict(score_thr=0.0)),
)

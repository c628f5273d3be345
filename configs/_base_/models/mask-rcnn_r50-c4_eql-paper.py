# The same for the C4 model, from PyTorch's weights as the paper's other
# models; mmdet's base has Caffe's, and none for its fifth stage.
_base_ = 'mmdet::_base_/models/mask-rcnn_r50-caffe-c4.py'
init_cfg = dict(type='Pretrained', checkpoint='torchvision://resnet50')
model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True),
    backbone=dict(style='pytorch', init_cfg=init_cfg),
    rpn_head=dict(loss_bbox=dict(_delete_=True, type='SmoothL1Loss', beta=1 / 9)),
    roi_head=dict(
        shared_head=dict(style='pytorch', init_cfg=init_cfg),
        bbox_head=dict(
            type='LongTailBBoxHead', num_classes=1230, loss_bbox=dict(_delete_=True, type='SmoothL1Loss', beta=1.0)
        ),
        mask_head=dict(num_classes=1230, class_agnostic=True),
    ),
    test_cfg=dict(rcnn=dict(score_thr=0.0, max_per_img=300)),
)

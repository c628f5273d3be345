# A small Faster R-CNN to fine-tune on a CPU: MobileNetV2 with ImageNet weights,
# which tools/model_converters/mobilenet_v2.py writes, anchors and proposals for
# images of 320 px.
_base_ = 'faster-rcnn_r18_fpn_narrow.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='MobileNetV2',
        out_indices=(1, 2, 4, 6),
        frozen_stages=4,
        norm_cfg=dict(type='BN', requires_grad=False),
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='data/mobilenet_v2.pth'),
    ),
    neck=dict(in_channels=[24, 32, 96, 320], num_outs=5),
    rpn_head=dict(anchor_generator=dict(scales=[4], ratios=[0.5, 1.0, 2.0], strides=[4, 8, 16, 32, 64])),
    roi_head=dict(bbox_head=dict(num_classes=54)),
    train_cfg=dict(rpn_proposal=dict(nms_pre=500, max_per_img=200), rcnn=dict(sampler=dict(num=64, pos_fraction=0.25))),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=200)),
)

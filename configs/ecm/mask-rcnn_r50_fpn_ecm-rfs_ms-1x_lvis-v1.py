# ECM, Cho et al., ECCV 2022, https://arxiv.org/abs/2301.09724
# The authors' repository on LVIS v1, in percent:
# | mask AP | box AP |
# |---------|--------|
# | 26.4    | 26.9   |
# Run: tools/train.py configs/ecm/mask-rcnn_r50_fpn_ecm-rfs_ms-1x_lvis-v1.py
_base_ = '../bags/mask-rcnn_r50_fpn_rfs_ms-1x_lvis-v1.py'
cls_predictor_cfg = dict(type='NormedLinear', temperature=20)
loss_cls = dict(_delete_=True, type='EffectiveClassMarginLoss', num_classes=1203)
model = dict(
    roi_head=dict(
        bbox_head=dict(cls_predictor_cfg=cls_predictor_cfg, loss_cls=loss_cls),
        mask_head=dict(predictor_cfg=dict(type='NormedConv2d', temperature=20)),
    )
)
optim_wrapper = dict(clip_grad=dict(max_norm=5, norm_type=2))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=False, end=10000),
    dict(type='MultiStepLR', milestones=[8, 11], gamma=0.1, end=12),
]

# ECM, Cho et al., ECCV 2022, https://arxiv.org/abs/2301.09724
# The authors' repository on LVIS v1, in percent:
# | mask AP | box AP |
# |---------|--------|
# | 27.5    | 27.9   |
# Run: tools/train.py configs/ecm/mask-rcnn_r50_fpn_ecm-rfs_ms-2x_lvis-v1.py
_base_ = 'mask-rcnn_r50_fpn_ecm-rfs_ms-1x_lvis-v1.py'
train_cfg = dict(max_epochs=24)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-4, by_epoch=False, end=10000),
    dict(type='MultiStepLR', milestones=[20, 22], gamma=0.1, end=24),
]

# The detector that BAGS starts from: plain softmax, without RFS.
# mmdet's own recipe without RFS; no published result.
# Run: tools/train.py configs/bags/mask-rcnn_r50_fpn_softmax_ms-2x_lvis-v1.py
_base_ = 'mask-rcnn_r50_fpn_softmax_ms-1x_lvis-v1.py'
train_cfg = dict(max_epochs=24)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, end=500),
    dict(type='MultiStepLR', milestones=[16, 22], gamma=0.1, end=24),
]

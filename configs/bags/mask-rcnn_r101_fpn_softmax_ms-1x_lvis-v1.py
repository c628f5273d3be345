# The detector that BAGS starts from: plain softmax, without RFS.
# mmdet's own recipe without RFS; no published result.
# Run: tools/train.py configs/bags/mask-rcnn_r101_fpn_softmax_ms-1x_lvis-v1.py
_base_ = 'mask-rcnn_r50_fpn_softmax_ms-1x_lvis-v1.py'
model = dict(backbone=dict(depth=101, init_cfg=dict(checkpoint='torchvision://resnet101')))

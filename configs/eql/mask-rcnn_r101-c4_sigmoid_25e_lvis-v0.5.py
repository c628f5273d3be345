# EQL, Tan et al., CVPR 2020, https://arxiv.org/abs/2003.05176
# Plain sigmoid cross-entropy, the row that EQL is compared with.
# The paper's Table 1, in percent:
# | mask AP | APr  | APc  | APf  | box AP |
# |---------|------|------|------|--------|
# | 21.8    | 10.5 | 23.4 | 24.2 | 22.9   |
# Run: tools/train.py configs/eql/mask-rcnn_r101-c4_sigmoid_25e_lvis-v0.5.py
_base_ = 'mask-rcnn_r50-c4_sigmoid_25e_lvis-v0.5.py'
init_cfg = dict(checkpoint='torchvision://resnet101')
model = dict(backbone=dict(depth=101, init_cfg=init_cfg), roi_head=dict(shared_head=dict(depth=101, init_cfg=init_cfg)))

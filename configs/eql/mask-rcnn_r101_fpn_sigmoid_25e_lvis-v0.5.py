# EQL, Tan et al., CVPR 2020, https://arxiv.org/abs/2003.05176
# Plain sigmoid cross-entropy, the row that EQL is compared with.
# The paper's Table 1, in percent:
# | mask AP | APr | APc  | APf  | box AP |
# |---------|-----|------|------|--------|
# | 22.2    | 9.8 | 22.6 | 26.5 | 22.7   |
# Run: tools/train.py configs/eql/mask-rcnn_r101_fpn_sigmoid_25e_lvis-v0.5.py
_base_ = 'mask-rcnn_r50_fpn_sigmoid_25e_lvis-v0.5.py'
init_cfg = dict(checkpoint='torchvision://resnet101')
model = dict(backbone=dict(depth=101, init_cfg=init_cfg))

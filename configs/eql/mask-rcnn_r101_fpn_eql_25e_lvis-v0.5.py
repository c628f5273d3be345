# EQL, Tan et al., CVPR 2020, https://arxiv.org/abs/2003.05176
# The paper's Table 1, in percent:
# | mask AP | APr  | APc  | APf  | box AP |
# |---------|------|------|------|--------|
# | 24.8    | 14.6 | 26.7 | 26.4 | 25.2   |
# lambda = 1.76e-3 of the 57,263 images: 915 tail classes, tail ratio 9.1 %.
# Tail classes that an image was checked for are not spared (section 4.2).
# Run: tools/train.py configs/eql/mask-rcnn_r101_fpn_eql_25e_lvis-v0.5.py
_base_ = 'mask-rcnn_r50_fpn_eql_25e_lvis-v0.5.py'
init_cfg = dict(checkpoint='torchvision://resnet101')
model = dict(backbone=dict(depth=101, init_cfg=init_cfg))

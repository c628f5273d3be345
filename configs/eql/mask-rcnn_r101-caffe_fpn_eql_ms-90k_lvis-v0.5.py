# EQL, Tan et al., CVPR 2020, https://arxiv.org/abs/2003.05176
# The authors' released code, https://github.com/tztztztztz/eql.detectron2
# Its results, in percent:
# | mask AP | APr  | APc  | APf  | box AP |
# |---------|------|------|------|--------|
# | 25.9    | 10.0 | 27.9 | 29.8 | 25.9   |
# lambda = 1.7538e-3 of all 57,263 images, their 1.77e-3 of the 56,740
# annotated ones: 915 tail classes, tail ratio 9.1 %.
# Run: tools/train.py configs/eql/mask-rcnn_r101-caffe_fpn_eql_ms-90k_lvis-v0.5.py
_base_ = 'mask-rcnn_r50-caffe_fpn_eql_ms-90k_lvis-v0.5.py'
init_cfg = dict(checkpoint='open-mmlab://detectron2/resnet101_caffe')
model = dict(backbone=dict(depth=101, init_cfg=init_cfg))

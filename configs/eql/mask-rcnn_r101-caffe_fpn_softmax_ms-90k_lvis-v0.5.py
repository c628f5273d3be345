# EQL, Tan et al., CVPR 2020, https://arxiv.org/abs/2003.05176
# The authors' released code, https://github.com/tztztztztz/eql.detectron2
# Its results, in percent:
# | mask AP | APr | APc  | APf  | box AP |
# |---------|-----|------|------|--------|
# | 22.8    | 4.3 | 22.7 | 30.2 | 22.3   |
# Its config is not published; Detectron2's head is a softmax.
# Run: tools/train.py configs/eql/mask-rcnn_r101-caffe_fpn_softmax_ms-90k_lvis-v0.5.py
_base_ = 'mask-rcnn_r50-caffe_fpn_softmax_ms-90k_lvis-v0.5.py'
init_cfg = dict(checkpoint='open-mmlab://detectron2/resnet101_caffe')
model = dict(backbone=dict(depth=101, init_cfg=init_cfg))

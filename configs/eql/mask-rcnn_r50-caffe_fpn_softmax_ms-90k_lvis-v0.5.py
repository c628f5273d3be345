# EQL, Tan et al., CVPR 2020, https://arxiv.org/abs/2003.05176
# The authors' released code, https://github.com/tztztztztz/eql.detectron2
# Its results, in percent:
# | mask AP | APr | APc  | APf  | box AP |
# |---------|-----|------|------|--------|
# | 21.2    | 3.2 | 21.1 | 28.7 | 20.8   |
# Its config is not published; Detectron2's head is a softmax.
# Run: tools/train.py configs/eql/mask-rcnn_r50-caffe_fpn_softmax_ms-90k_lvis-v0.5.py
_base_ = [
    '../_base_/models/mask-rcnn_r50-caffe_fpn_lvis-v0.5.py',
    '../_base_/datasets/lvis_v0.5_640-800.py',
    '../_base_/schedules/eql_released.py',
    '../_base_/longtail_iteration_runtime.py',
]

# The detector that BAGS starts from: plain softmax, without RFS.
# The EQL authors' repository on LVIS v1, in percent:
# | mask AP | APr | APc  | APf  |
# |---------|-----|------|------|
# | 16.1    | 0.0 | 12.0 | 27.4 |
# Run: tools/train.py configs/bags/mask-rcnn_r50_fpn_softmax_ms-1x_lvis-v1.py
_base_ = '../_base_/mask-rcnn_r50_fpn_ms-1x_lvis-v1.py'

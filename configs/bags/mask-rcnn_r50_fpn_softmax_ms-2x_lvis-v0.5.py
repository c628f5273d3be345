# mmdet's own recipe without RFS; no published result.
# The detector that BAGS starts from.
# Run: tools/train.py configs/bags/mask-rcnn_r50_fpn_softmax_ms-2x_lvis-v0.5.py
_base_ = '../_base_/mask-rcnn_r50_fpn_ms-2x_lvis-v0.5.py'

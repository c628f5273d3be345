# BAGS, Li et al., CVPR 2020, https://arxiv.org/abs/2006.10408
# The paper's Table 1, row 2, in percent:
# | box AP | APr  | APc   | APf   | AP1  | AP2   | AP3   | AP4   |
# |--------|------|-------|-------|------|-------|-------|-------|
# | 21.93  | 5.79 | 22.02 | 28.26 | 0.64 | 20.94 | 23.54 | 28.92 |
# Trains everything for 12 epochs more, with the LR of the first 12.
# Run: tools/train.py configs/bags/faster-rcnn_r50_fpn_softmax-x2_1x_lvis-v0.5.py
_base_ = 'faster-rcnn_r50_fpn_softmax_1x_lvis-v0.5.py'
base_config = 'faster-rcnn_r50_fpn_softmax_1x_lvis-v0.5.py'
load_from = 'work_dirs/faster-rcnn_r50_fpn_softmax_1x_lvis-v0.5/epoch_12.pth'

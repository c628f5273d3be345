# RFS, Gupta et al., LVIS, CVPR 2019, https://arxiv.org/abs/1908.03195
# BAGS's Table 1, row 5, in percent:
# | box AP | APr   | APc   | APf   | AP1  | AP2   | AP3   | AP4   |
# |--------|-------|-------|-------|------|-------|-------|-------|
# | 22.66  | 13.44 | 22.06 | 27.09 | 8.06 | 23.07 | 22.43 | 27.73 |
# Trains everything for 12 epochs more, on images that repeat.
# Run: tools/train.py configs/bags/faster-rcnn_r50_fpn_rfs-finetune_1x_lvis-v0.5.py
_base_ = 'faster-rcnn_r50_fpn_rfs_1x_lvis-v0.5.py'
base_config = 'faster-rcnn_r50_fpn_softmax_1x_lvis-v0.5.py'
load_from = 'work_dirs/faster-rcnn_r50_fpn_softmax_1x_lvis-v0.5/epoch_12.pth'

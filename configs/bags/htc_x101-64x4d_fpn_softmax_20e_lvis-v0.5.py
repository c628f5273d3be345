# BAGS, Li et al., CVPR 2020, https://arxiv.org/abs/2006.10408
# The detector that BAGS starts from.
# The paper's Table 3, in percent:
# |      | AP    | APr   | APc   | APf   | AP1  | AP2   | AP3   | AP4   |
# |------|-------|-------|-------|-------|------|-------|-------|-------|
# | mask | 29.28 | 12.11 | 31.32 | 33.58 | 5.11 | 30.34 | 30.62 | 34.37 |
# | box  | 31.28 | 12.39 | 32.58 | 37.18 | 5.02 | 31.71 | 33.24 | 37.21 |
# From mmdet's HTC X101-64x4d on COCO, 20 epochs; class-wise layers
# are re-initialised. Needs COCO's stuff maps in data/lvis_v0.5/stuffthingmaps.
# Run: tools/train.py configs/bags/htc_x101-64x4d_fpn_softmax_20e_lvis-v0.5.py
_base_ = '../_base_/htc_x101-64x4d_fpn_bags-paper.py'
load_from = 'https://download.openmmlab.com/mmdetection/v2.0/htc/htc_x101_64x4d_fpn_16x1_20e_coco/htc_x101_64x4d_fpn_16x1_20e_coco_20200318-b181fd7a.pth'

# BAGS, Li et al., CVPR 2020, https://arxiv.org/abs/2006.10408
# The paper's Table 3, in percent:
# |      | AP    | APr   | APc   | APf   | AP1   | AP2   | AP3   | AP4   |
# |------|-------|-------|-------|-------|-------|-------|-------|-------|
# | mask | 31.20 | 23.40 | 32.34 | 32.89 | 17.33 | 33.87 | 30.34 | 33.29 |
# | box  | 33.68 | 25.43 | 34.12 | 36.42 | 19.95 | 36.14 | 32.82 | 36.06 |
# Trains fc_cls of all three stages for 12 epochs on the finished softmax
# detector beside it.
# Run: tools/train.py configs/bags/htc_x101-64x4d_fpn_bags-classifier_20e_lvis-v0.5.py
_base_ = '../_base_/htc_x101-64x4d_fpn_bags-classifier.py'
base_config = 'htc_x101-64x4d_fpn_softmax_20e_lvis-v0.5.py'
load_from = 'work_dirs/htc_x101-64x4d_fpn_softmax_20e_lvis-v0.5/epoch_20.pth'

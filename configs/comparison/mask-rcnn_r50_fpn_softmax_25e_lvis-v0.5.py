# Tan et al., CVPR 2020, https://arxiv.org/abs/2003.05176, section 4.5.
# EQL's Table 5, in percent:
# | mask AP | APr | APc  | APf  | box AP |
# |---------|-----|------|------|--------|
# | 20.2    | 4.5 | 20.8 | 25.6 | 20.7   |
# Run: tools/train.py configs/comparison/mask-rcnn_r50_fpn_softmax_25e_lvis-v0.5.py
_base_ = [
    '../_base_/models/mask-rcnn_r50_fpn_eql-paper.py',
    '../_base_/datasets/lvis_v0.5_800.py',
    '../_base_/schedules/eql_paper.py',
    '../_base_/longtail_default_runtime.py',
]

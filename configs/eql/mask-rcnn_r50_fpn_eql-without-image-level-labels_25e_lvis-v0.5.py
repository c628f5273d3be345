# EQL, Tan et al., CVPR 2020, https://arxiv.org/abs/2003.05176
# Without the rule for image-level labels (section 4.2), as in their code.
# The paper's Table 1, in percent:
# | mask AP | APr  | APc  | APf  | box AP |
# |---------|------|------|------|--------|
# | 22.8    | 11.3 | 24.7 | 25.1 | 23.3   |
# Run: tools/train.py configs/eql/mask-rcnn_r50_fpn_eql-without-image-level-labels_25e_lvis-v0.5.py
_base_ = 'mask-rcnn_r50_fpn_eql_25e_lvis-v0.5.py'
train_dataloader = dict(dataset=dict(type='LVISV05Dataset'))
model = dict(roi_head=dict(type='StandardRoIHead'))

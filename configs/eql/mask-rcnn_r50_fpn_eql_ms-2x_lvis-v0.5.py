# EQL, Tan et al., CVPR 2020, https://arxiv.org/abs/2003.05176
# No published result with mmdet's own recipe.
# The paper's Table 5, with the paper's recipe, in percent:
# |         | mask AP | APr  | APc  | APf  |
# |---------|---------|------|------|------|
# | sigmoid | 20.1    | 7.2  | 19.9 | 25.4 |
# | EQL     | 22.8    | 11.3 | 24.7 | 25.1 |
# lambda = 1.76e-3 of the 57,263 images: 915 tail classes, tail ratio 9.1 %.
# Run: tools/train.py configs/eql/mask-rcnn_r50_fpn_eql_ms-2x_lvis-v0.5.py
_base_ = '../_base_/mask-rcnn_r50_fpn_ms-2x_lvis-v0.5.py'
loss_cls = dict(_delete_=True, type='EqualizationLoss', num_classes=1230, frequency_threshold=1.76e-3)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

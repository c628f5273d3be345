# EQLv2, Tan et al., CVPR 2021, https://arxiv.org/abs/2012.08548
# The authors' repository on LVIS v1, in percent:
# |         | mask AP | APr  | APc  | APf  |
# |---------|---------|------|------|------|
# | softmax | 16.1    | 0.0  | 12.0 | 27.4 |
# | EQLv2   | 23.7    | 14.9 | 22.8 | 28.6 |
# No class statistics are needed; the metric takes them from the hook.
# Run: tools/train.py configs/eqlv2/mask-rcnn_r50_fpn_eqlv2_ms-1x_lvis-v1.py
_base_ = '../_base_/mask-rcnn_r50_fpn_ms-1x_lvis-v1.py'
loss_cls = dict(_delete_=True, type='EqualizationLossV2', num_classes=1203, gamma=12, mu=0.8, alpha=4.0)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

# Focal loss, Lin et al., ICCV 2017, https://arxiv.org/abs/1708.02002
# EQL's Table 5, in percent:
# | mask AP | APr | APc  | APf  | box AP |
# |---------|-----|------|------|--------|
# | 21.0    | 9.3 | 21.0 | 25.8 | 21.9   |
# EQL's paper gives neither gamma nor alpha: here focal loss's own.
# Run: tools/train.py configs/comparison/mask-rcnn_r50_fpn_focal_25e_lvis-v0.5.py
_base_ = 'mask-rcnn_r50_fpn_softmax_25e_lvis-v0.5.py'
loss_cls = dict(_delete_=True, type='RoIFocalLoss', num_classes=1230, gamma=2.0, alpha=0.25)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

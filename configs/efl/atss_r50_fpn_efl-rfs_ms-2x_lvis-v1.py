# EFL, Li et al., CVPR 2022, https://arxiv.org/abs/2201.02593
# The authors' released code, https://github.com/ModelTC/United-Perception
# Its results, in percent; its head predicts the IoU, mmdet's centerness:
# | box AP | APr  | APc  | APf  |
# |--------|------|------|------|
# | 27.5   | 20.2 | 26.1 | 32.4 |
# gamma 2, alpha 0.25, s 8; RFS with 1e-3.
# Run: tools/train.py configs/efl/atss_r50_fpn_efl-rfs_ms-2x_lvis-v1.py
_base_ = 'atss_r50_fpn_focal-rfs_ms-2x_lvis-v1.py'
loss_cls = dict(
    _delete_=True,
    type='EqualizedFocalLoss',
    num_classes=1203,
    use_sigmoid=True,
    gamma=2.0,
    alpha=0.25,
    scale_factor=8.0,
)
model = dict(bbox_head=dict(loss_cls=loss_cls))

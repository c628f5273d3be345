# EFL, Li et al., CVPR 2022, https://arxiv.org/abs/2201.02593
# EQFL, from the same authors' code, in GFL with the schedule of EFL.
# No published result; theirs is in YOLOX-M, box AP in percent:
# | box AP | APr  | APc  | APf  |
# |--------|------|------|------|
# | 31.0   | 24.0 | 29.1 | 36.2 |
# Run: tools/train.py configs/efl/gfl_r50_fpn_eqfl-rfs_ms-2x_lvis-v1.py
_base_ = 'atss_r50_fpn_focal-rfs_ms-2x_lvis-v1.py'
loss_cls = dict(type='EqualizedQualityFocalLoss', num_classes=1203, use_sigmoid=True, gamma=2.0, scale_factor=8.0)
anchors = dict(type='AnchorGenerator', ratios=[1.0], scales=[8], strides=[8, 16, 32, 64, 128])
head = dict(_delete_=True, type='GFLHead', num_classes=1203, in_channels=256, anchor_generator=anchors)
head['loss_cls'], head['loss_bbox'] = loss_cls, dict(type='GIoULoss', loss_weight=2.0)
prior = dict(type='Normal', name='gfl_cls', std=0.01, bias_prob=0.001)
head['init_cfg'] = dict(type='Normal', layer='Conv2d', std=0.01, override=prior)
model = dict(type='GFL', bbox_head=head, train_cfg=dict(assigner=dict(topk=9)))

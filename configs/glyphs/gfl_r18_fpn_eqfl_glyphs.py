# EFL, Li et al., CVPR 2022, https://arxiv.org/abs/2201.02593
# EQFL, from the same authors' code, in GFL.
# Run: tools/train.py configs/glyphs/gfl_r18_fpn_eqfl_glyphs.py
_base_ = 'atss_r18_fpn_focal_glyphs.py'
loss_cls = dict(type='EqualizedQualityFocalLoss', num_classes=120, use_sigmoid=True, scale_factor=8.0)
anchors = dict(type='AnchorGenerator', ratios=[1.0], scales=[5], strides=[4, 8, 16, 32])
head = dict(_delete_=True, type='GFLHead', num_classes=120, in_channels=64, feat_channels=64, stacked_convs=2)
head |= dict(anchor_generator=anchors, loss_cls=loss_cls, loss_bbox=dict(type='GIoULoss', loss_weight=2.0))
model = dict(type='GFL', bbox_head=head)

# Quality focal loss, the one-stage detector that EQFL is compared with.
# Run: tools/train.py configs/glyphs/gfl_r18_fpn_qfl_glyphs.py
_base_ = 'atss_r18_fpn_focal_glyphs.py'
anchors = dict(type='AnchorGenerator', ratios=[1.0], scales=[5], strides=[4, 8, 16, 32])
loss_cls = dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0)
head = dict(_delete_=True, type='GFLHead', num_classes=120, in_channels=64, feat_channels=64, stacked_convs=2)
head |= dict(anchor_generator=anchors, loss_cls=loss_cls, loss_bbox=dict(type='GIoULoss', loss_weight=2.0))
model = dict(type='GFL', bbox_head=head)

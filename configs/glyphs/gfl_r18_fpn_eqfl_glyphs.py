# EFL, Li et al., CVPR 2022, https://arxiv.org/abs/2201.02593
# EQFL, from the same authors' code, in GFL.
# Run: tools/train.py configs/glyphs/gfl_r18_fpn_eqfl_glyphs.py
_base_ = 'gfl_r18_fpn_qfl_glyphs.py'
loss_cls = dict(_delete_=True, type='EqualizedQualityFocalLoss', num_classes=120, use_sigmoid=True, scale_factor=8.0)
model = dict(bbox_head=dict(loss_cls=loss_cls))

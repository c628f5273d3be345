# EFL, Li et al., CVPR 2022, https://arxiv.org/abs/2201.02593
# One-stage; compare with focal in ATSS.
# Run: tools/train.py configs/glyphs/atss_r18_fpn_efl_glyphs.py
_base_ = 'atss_r18_fpn_focal_glyphs.py'
loss_cls = dict(_delete_=True, type='EqualizedFocalLoss', num_classes=120, use_sigmoid=True, scale_factor=8.0)
model = dict(bbox_head=dict(loss_cls=loss_cls))

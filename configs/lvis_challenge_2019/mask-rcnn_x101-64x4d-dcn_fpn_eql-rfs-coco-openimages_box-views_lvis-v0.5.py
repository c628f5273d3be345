# LVIS Challenge 2019, Tan et al., CVPR 2020, Appendix A: + multi-scale box
# testing. Masks are of the view at 800 without flip.
# The paper's Table 11, in percent:
# | mask AP | APr  | APc  | APf  |
# |---------|------|------|------|
# | 32.3    | 20.5 | 34.7 | 34.2 |
# Not in the paper: flips, the longest side, how boxes are merged (here NMS).
# Run: tools/test.py configs/lvis_challenge_2019/mask-rcnn_x101-64x4d-dcn_fpn_eql-rfs-coco-openimages_box-views_lvis-v0.5.py CHECKPOINT --tta
_base_ = 'mask-rcnn_x101-64x4d-dcn_fpn_eql-rfs-coco-openimages_ms-25e_lvis-v0.5.py'
tta_model = dict(type='MaskTTAModel', mask_views=[2])
resizes = [dict(type='Resize', scale=(side * 5 // 3, side), keep_ratio=True) for side in (600, 800, 1000, 1200, 1400)]
flips = [dict(type='RandomFlip', prob=prob) for prob in (0.0, 1.0)]
pack = dict(
    type='PackDetInputs',
    meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction'),
)
tta_pipeline = [dict(type='LoadImageFromFile'), dict(type='TestTimeAug', transforms=[resizes, flips, [pack]])]

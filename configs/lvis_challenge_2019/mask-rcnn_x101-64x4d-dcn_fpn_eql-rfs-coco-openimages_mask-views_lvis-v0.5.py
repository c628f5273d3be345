# LVIS Challenge 2019, Tan et al., CVPR 2020, Appendix A: + multi-scale mask
# testing. The mask is the mean of the probabilities in all views.
# The paper's Table 11, with the ensemble of the row before, in percent:
# | mask AP | APr  | APc  | APf  |
# |---------|------|------|------|
# | 36.4    | 25.5 | 38.6 | 38.1 |
# README.md has the command of the ensemble.
# Run: tools/test.py configs/lvis_challenge_2019/mask-rcnn_x101-64x4d-dcn_fpn_eql-rfs-coco-openimages_mask-views_lvis-v0.5.py CHECKPOINT --tta
_base_ = 'mask-rcnn_x101-64x4d-dcn_fpn_eql-rfs-coco-openimages_box-views_lvis-v0.5.py'
tta_model = dict(mask_views=None)

# Seesaw Loss, Wang et al., CVPR 2021, https://arxiv.org/abs/2008.10032
# RFS, Gupta et al., LVIS, CVPR 2019, https://arxiv.org/abs/1908.03195
# mmdet's README on LVIS v1, in percent:
# | mask AP | box AP |
# |---------|--------|
# | 26.8    | 27.6   |
# Run: tools/train.py configs/seesaw/mask-rcnn_r50_fpn_seesaw-normed-mask-rfs_ms-2x_lvis-v1.py
_base_ = 'mask-rcnn_r50_fpn_seesaw-rfs_ms-2x_lvis-v1.py'
model = dict(roi_head=dict(mask_head=dict(predictor_cfg=dict(type='NormedConv2d', temperature=20))))

# Seesaw Loss, Wang et al., CVPR 2021, https://arxiv.org/abs/2008.10032
# RFS, Gupta et al., LVIS, CVPR 2019, https://arxiv.org/abs/1908.03195
# mmdet's README on LVIS v1, in percent:
# | mask AP | box AP |
# |---------|--------|
# | 26.4    | 27.6   |
# Run: tools/train.py configs/seesaw/mask-rcnn_r50_fpn_seesaw-rfs_ms-2x_lvis-v1.py
_base_ = 'mask-rcnn_r50_fpn_seesaw_ms-2x_lvis-v1.py'
train_dataloader = dict(sampler=dict(_delete_=True, type='RepeatFactorSampler', oversample_thr=1e-3))

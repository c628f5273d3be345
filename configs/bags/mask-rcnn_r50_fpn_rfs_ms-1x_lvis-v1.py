# RFS, Gupta et al., LVIS, CVPR 2019, https://arxiv.org/abs/1908.03195
# The EQL authors' repository on LVIS v1, in percent:
# | mask AP | APr  | APc  | APf  |
# |---------|------|------|------|
# | 22.2    | 11.5 | 21.2 | 28.0 |
# There r(I) is rounded up: 8 % more images per epoch.
# Run: tools/train.py configs/bags/mask-rcnn_r50_fpn_rfs_ms-1x_lvis-v1.py
_base_ = 'mask-rcnn_r50_fpn_softmax_ms-1x_lvis-v1.py'
train_dataloader = dict(sampler=dict(_delete_=True, type='RepeatFactorSampler', oversample_thr=1e-3))

# RFS, Gupta et al., LVIS, CVPR 2019, https://arxiv.org/abs/1908.03195
# mmdet's own recipe; no published result.
# Run: tools/train.py configs/bags/mask-rcnn_r101_fpn_rfs_ms-1x_lvis-v1.py
_base_ = 'mask-rcnn_r101_fpn_softmax_ms-1x_lvis-v1.py'
train_dataloader = dict(sampler=dict(_delete_=True, type='RepeatFactorSampler', oversample_thr=1e-3))

# RFS, Gupta et al., LVIS, CVPR 2019, https://arxiv.org/abs/1908.03195
# EQL's Table 5, in percent:
# | mask AP | APr  | APc  | APf  | box AP |
# |---------|------|------|------|--------|
# | 21.3    | 12.2 | 21.5 | 24.7 | 21.6   |
# EQL's paper gives neither loss nor threshold: softmax and 1e-3, RFS's own.
# Run: tools/train.py configs/comparison/mask-rcnn_r50_fpn_rfs_25e_lvis-v0.5.py
_base_ = 'mask-rcnn_r50_fpn_softmax_25e_lvis-v0.5.py'
train_dataloader = dict(sampler=dict(_delete_=True, type='RepeatFactorSampler', oversample_thr=1e-3))

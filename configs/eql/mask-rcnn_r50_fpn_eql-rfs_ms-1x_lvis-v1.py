# EQL, Tan et al., CVPR 2020, https://arxiv.org/abs/2003.05176
# RFS, Gupta et al., LVIS, CVPR 2019, https://arxiv.org/abs/1908.03195
# Not published on LVIS v1. The EQL authors' later repository, in percent:
# |               | mask AP | APr  | APc  | APf  |
# |---------------|---------|------|------|------|
# | softmax + RFS | 22.2    | 11.5 | 21.2 | 28.0 |
# lambda as without RFS; classes in fewer than 0.1 % of the images repeat.
# Run: tools/train.py configs/eql/mask-rcnn_r50_fpn_eql-rfs_ms-1x_lvis-v1.py
_base_ = 'mask-rcnn_r50_fpn_eql_ms-1x_lvis-v1.py'
train_dataloader = dict(sampler=dict(_delete_=True, type='RepeatFactorSampler', oversample_thr=1e-3))

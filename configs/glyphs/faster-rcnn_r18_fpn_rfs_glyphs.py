# RFS, Gupta et al., LVIS, CVPR 2019, https://arxiv.org/abs/1908.03195
# Mean of 3 seeds, in percent:
# |         | APr  | APc  | APf  |
# |---------|------|------|------|
# | rfs     | 15.3 | 30.4 | 49.8 |
# | softmax | 8.4  | 29.8 | 49.0 |
# oversample_thr: classes in fewer than 2 % of the images are repeated, which
# makes an epoch 1.25 times as long, so 4 epochs show as many images as 5 of
# softmax; LVIS's 1e-3 would repeat almost nothing.
# Run: tools/train.py configs/glyphs/faster-rcnn_r18_fpn_rfs_glyphs.py
_base_ = 'faster-rcnn_r18_fpn_softmax_glyphs.py'
train_dataloader = dict(sampler=dict(_delete_=True, type='RepeatFactorSampler', oversample_thr=0.02))
train_cfg = dict(max_epochs=4, val_interval=4)
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], T_max=4)]

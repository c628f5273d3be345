# EQL, Tan et al., CVPR 2020, https://arxiv.org/abs/2003.05176
# RFS, Gupta et al., LVIS, CVPR 2019, https://arxiv.org/abs/1908.03195
# Mean of 3 seeds, in percent:
# |         | APr  | APc  | APf  |
# |---------|------|------|------|
# | eql-rfs | 15.7 | 27.8 | 50.9 |
# | eql     | 9.6  | 28.1 | 51.6 |
# oversample_thr: classes in fewer than 2 % of the images are repeated, which
# makes an epoch 1.25 times as long, so 4 epochs show as many images as 5 of
# softmax; LVIS's 1e-3 would repeat almost nothing.
# Run: tools/train.py configs/glyphs/faster-rcnn_r18_fpn_eql-rfs_glyphs.py
_base_ = 'faster-rcnn_r18_fpn_eql_glyphs.py'
train_dataloader = dict(sampler=dict(_delete_=True, type='RepeatFactorSampler', oversample_thr=0.02))
train_cfg = dict(max_epochs=4, val_interval=4)
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], T_max=4)]

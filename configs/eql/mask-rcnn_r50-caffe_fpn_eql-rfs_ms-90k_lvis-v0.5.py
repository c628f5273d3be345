# EQL, Tan et al., CVPR 2020, https://arxiv.org/abs/2003.05176
# The authors' released code, https://github.com/tztztztztz/eql.detectron2
# Its results, in percent:
# | mask AP | APr  | APc  | APf  | box AP |
# |---------|------|------|------|--------|
# | 26.1    | 17.2 | 27.3 | 28.2 | 25.4   |
# lambda = 1.7538e-3 of all 57,263 images, their 1.77e-3 of the 56,740
# annotated ones: 915 tail classes, tail ratio 9.1 %. RFS with its threshold,
# 5e-4.
# Run: tools/train.py configs/eql/mask-rcnn_r50-caffe_fpn_eql-rfs_ms-90k_lvis-v0.5.py
_base_ = 'mask-rcnn_r50-caffe_fpn_eql_ms-90k_lvis-v0.5.py'
train_dataloader = dict(sampler=dict(_delete_=True, type='RepeatFactorSampler', oversample_thr=5e-4))

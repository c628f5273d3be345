# GOL, Alexandridis et al., ECCV 2022, https://arxiv.org/abs/2207.10936
# EQL in the place of DropLoss, a config of the authors' released code,
# https://github.com/kostas1515/GOL; no published result.
# lambda = 1.0914e-3 of all 100,170 images, their 1.1e-3 of the 99,388
# annotated ones: 815 tail classes, tail ratio 5.9 %.
# Run: tools/train.py configs/gol/mask-rcnn_r50_fpn_gumbel-eql-rfs_ms-2x_lvis-v1.py
_base_ = 'mask-rcnn_r50_fpn_gumbel-droploss-rfs_ms-2x_lvis-v1.py'
model = dict(roi_head=dict(bbox_head=dict(loss_cls=dict(type='GumbelEqualizationLoss'))))

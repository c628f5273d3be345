# GOL, Alexandridis et al., ECCV 2022, https://arxiv.org/abs/2207.10936
# The authors' released code, https://github.com/kostas1515/GOL
# Its results, in percent:
# | mask AP | APr  | APc  | APf  | box AP |
# |---------|------|------|------|--------|
# | 27.7    | 21.4 | 27.7 | 30.4 | 27.5   |
# 16 images per batch, learning rate 0.02, RFS with 1e-3, cosine mask
# classifier, NMS at 0.3. Theirs starts fc_cls at a constant 0.001.
# lambda = 1.0914e-3 of all 100,170 images, their 1.1e-3 of the 99,388
# annotated ones: 815 tail classes, tail ratio 5.9 %.
# Run: tools/train.py configs/gol/mask-rcnn_r50_fpn_gumbel-droploss-rfs_ms-2x_lvis-v1.py
_base_ = '../bags/mask-rcnn_r50_fpn_rfs_ms-2x_lvis-v1.py'
loss_cls = dict(_delete_=True, type='GumbelDropLoss', num_classes=1203, frequency_threshold=1.0914e-3)
model = dict(
    roi_head=dict(
        bbox_head=dict(loss_cls=loss_cls), mask_head=dict(predictor_cfg=dict(type='NormedConv2d', temperature=20))
    ),
    test_cfg=dict(rcnn=dict(nms=dict(iou_threshold=0.3))),
)

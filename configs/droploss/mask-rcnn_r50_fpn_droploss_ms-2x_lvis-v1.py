# DropLoss, Hsieh et al., AAAI 2021, https://arxiv.org/abs/2104.06402
# No published result on LVIS v1 with this recipe, mmdet's 2x without RFS.
# lambda = 1.0914e-3 of all 100,170 images, their 1.1e-3 of the 99,388
# annotated ones: 815 tail classes, tail ratio 5.9 %.
# Run: tools/train.py configs/droploss/mask-rcnn_r50_fpn_droploss_ms-2x_lvis-v1.py
_base_ = '../bags/mask-rcnn_r50_fpn_softmax_ms-2x_lvis-v1.py'
loss_cls = dict(_delete_=True, type='DropLoss', num_classes=1203, frequency_threshold=1.0914e-3)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

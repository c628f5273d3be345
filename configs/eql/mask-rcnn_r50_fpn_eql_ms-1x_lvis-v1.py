# EQL, Tan et al., CVPR 2020, https://arxiv.org/abs/2003.05176
# The authors' later repository on LVIS v1, in percent:
# |         | mask AP | APr | APc  | APf  |
# |---------|---------|-----|------|------|
# | softmax | 16.1    | 0.0 | 12.0 | 27.4 |
# | EQL     | 18.6    | 2.1 | 17.4 | 27.2 |
# lambda = 1.0914e-3 of all 100,170 images, their 1.1e-3 of the 99,388
# annotated ones: 815 tail classes, tail ratio 5.9 %.
# Run: tools/train.py configs/eql/mask-rcnn_r50_fpn_eql_ms-1x_lvis-v1.py
_base_ = '../_base_/mask-rcnn_r50_fpn_ms-1x_lvis-v1.py'
loss_cls = dict(_delete_=True, type='EqualizationLoss', num_classes=1203, frequency_threshold=1.0914e-3)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

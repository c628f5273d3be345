# Class-balanced loss, Cui et al., CVPR 2019, https://arxiv.org/abs/1901.05555
# EQL's Table 5, in percent:
# | mask AP | APr | APc  | APf  | box AP |
# |---------|-----|------|------|--------|
# | 20.9    | 8.2 | 21.2 | 25.7 | 21.0   |
# EQL's paper gives neither beta nor which loss is weighted.
# Run: tools/train.py configs/comparison/mask-rcnn_r50_fpn_class-balanced_25e_lvis-v0.5.py
_base_ = 'mask-rcnn_r50_fpn_softmax_25e_lvis-v0.5.py'
loss_cls = dict(
    _delete_=True,
    type='ReweightedSoftmaxLoss',
    num_classes=1230,
    class_weight=dict(type='EffectiveNumberClassWeight', beta=0.999),
)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

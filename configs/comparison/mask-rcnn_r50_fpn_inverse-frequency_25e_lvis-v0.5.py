# Weights 1 / count, Huang et al., CVPR 2016; not among EQL's rows: no
# published result.
# Run: tools/train.py configs/comparison/mask-rcnn_r50_fpn_inverse-frequency_25e_lvis-v0.5.py
_base_ = 'mask-rcnn_r50_fpn_softmax_25e_lvis-v0.5.py'
loss_cls = dict(
    _delete_=True, type='ReweightedSoftmaxLoss', num_classes=1230, class_weight=dict(type='InverseClassWeight')
)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

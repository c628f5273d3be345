# EQLv2, Tan et al., CVPR 2021, https://arxiv.org/abs/2012.08548
# No published result.
# Trains fc_cls for 12 epochs on a finished softmax detector.
# Run: tools/train.py configs/eqlv2/mask-rcnn_r50_fpn_eqlv2-classifier_ms-1x_lvis-v1.py
_base_ = '../bags/mask-rcnn_r50_fpn_bags-classifier_ms-1x_lvis-v1.py'
base_config = '../bags/mask-rcnn_r50_fpn_softmax_ms-1x_lvis-v1.py'
loss_cls = dict(_delete_=True, type='EqualizationLossV2', num_classes=1203)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

# Balanced Softmax, Ren et al., NeurIPS 2020, https://arxiv.org/abs/2007.10740
# No published result: the authors' results on LVIS are of v0.5, and of sigmoids.
# Trains fc_cls for 12 epochs on a finished softmax detector.
# Run: tools/train.py configs/balanced_softmax/mask-rcnn_r50_fpn_balanced-softmax-classifier_ms-1x_lvis-v1.py
_base_ = '../bags/mask-rcnn_r50_fpn_bags-classifier_ms-1x_lvis-v1.py'
base_config = '../bags/mask-rcnn_r50_fpn_softmax_ms-1x_lvis-v1.py'
loss_cls = dict(_delete_=True, type='BalancedSoftmaxLoss', num_classes=1203)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

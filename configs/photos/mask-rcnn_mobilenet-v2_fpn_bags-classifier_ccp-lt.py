# BAGS, Li et al., CVPR 2020, https://arxiv.org/abs/2006.10408
# Trains fc_cls for 4 epochs on the finished softmax detector beside it.
# Run: tools/train.py configs/photos/mask-rcnn_mobilenet-v2_fpn_bags-classifier_ccp-lt.py
_base_ = 'mask-rcnn_mobilenet-v2_fpn_softmax_ccp-lt.py'
base_config = 'mask-rcnn_mobilenet-v2_fpn_softmax_ccp-lt.py'
load_from = 'work_dirs/mask-rcnn_mobilenet-v2_fpn_softmax_ccp-lt/epoch_5.pth'
default_hooks = dict(train_only=dict(type='TrainOnlyHook', trainable=['roi_head.bbox_head.fc_cls']))
train_cfg = dict(max_epochs=4, val_interval=4)
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], T_max=4)]
loss_cls = dict(
    _delete_=True, type='BalancedGroupSoftmaxLoss', num_classes=54, bin_edges=(10, 100, 1000), others_ratio=8.0
)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

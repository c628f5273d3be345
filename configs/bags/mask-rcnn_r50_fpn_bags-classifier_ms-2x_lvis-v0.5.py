# BAGS, Li et al., CVPR 2020, https://arxiv.org/abs/2006.10408
# On mmdet's own recipe, no published result.
# Trains fc_cls for 12 epochs on the finished softmax detector beside it.
# Run: tools/train.py configs/bags/mask-rcnn_r50_fpn_bags-classifier_ms-2x_lvis-v0.5.py
_base_ = 'mask-rcnn_r50_fpn_softmax_ms-2x_lvis-v0.5.py'
base_config = 'mask-rcnn_r50_fpn_softmax_ms-2x_lvis-v0.5.py'
load_from = 'work_dirs/mask-rcnn_r50_fpn_softmax_ms-2x_lvis-v0.5/epoch_24.pth'
default_hooks = dict(train_only=dict(type='TrainOnlyHook', trainable=['roi_head.bbox_head.fc_cls']))
train_cfg = dict(max_epochs=12)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, end=500),
    dict(type='MultiStepLR', milestones=[8, 11], gamma=0.1, end=12),
]
loss_cls = dict(
    _delete_=True, type='BalancedGroupSoftmaxLoss', num_classes=1230, bin_edges=(10, 100, 1000), others_ratio=8.0
)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

# What BAGS's released configs train on a finished HTC: fc_cls of all stages.
_base_ = 'htc_x101-64x4d_fpn_bags-paper.py'
default_hooks = dict(train_only=dict(type='TrainOnlyHook', trainable=['roi_head.bbox_head.*.fc_cls']))
train_cfg = dict(max_epochs=12)
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 3, by_epoch=False, end=500),
    dict(type='MultiStepLR', milestones=[8, 11], gamma=0.1, end=12),
]
optim_wrapper = dict(optimizer=dict(lr=0.005))
auto_scale_lr = dict(base_batch_size=8)
loss_cls = dict(type='BalancedGroupSoftmaxLoss', num_classes=1230, bin_edges=(10, 100, 1000), others_ratio=8.0)
bbox_head = [dict(head, loss_cls=loss_cls) for head in _base_.model.roi_head.bbox_head]
model = dict(roi_head=dict(bbox_head=bbox_head), test_cfg=dict(rcnn=dict(max_per_img=300)))

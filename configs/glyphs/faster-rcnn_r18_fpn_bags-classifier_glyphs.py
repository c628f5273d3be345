# BAGS, Li et al., CVPR 2020, https://arxiv.org/abs/2006.10408
# Mean of 3 seeds, in percent:
# |                 | APr  | APc  | APf  |
# |-----------------|------|------|------|
# | bags-classifier | 16.2 | 34.5 | 50.0 |
# | softmax         | 8.4  | 29.8 | 49.0 |
# docs/glyphs.md separates the loss from the longer training. Trains fc_cls
# for 4 epochs on the finished softmax detector beside it.
# Run: tools/train.py configs/glyphs/faster-rcnn_r18_fpn_bags-classifier_glyphs.py
_base_ = 'faster-rcnn_r18_fpn_softmax_glyphs.py'
base_config = 'faster-rcnn_r18_fpn_softmax_glyphs.py'
load_from = 'work_dirs/faster-rcnn_r18_fpn_softmax_glyphs/epoch_5.pth'
default_hooks = dict(train_only=dict(type='TrainOnlyHook', trainable=['roi_head.bbox_head.fc_cls']))
train_cfg = dict(max_epochs=4, val_interval=4)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=100),
    dict(type='CosineAnnealingLR', T_max=4, convert_to_iter_based=True),
]
loss_cls = dict(_delete_=True, type='BalancedGroupSoftmaxLoss', num_classes=120, bin_edges=(10, 100), others_ratio=8.0)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

# BAGS, Li et al., CVPR 2020, https://arxiv.org/abs/2006.10408
# Among the released configs, without a published result.
# Trains fc_cls for 12 epochs on the finished RFS detector beside it. It
# samples as that one did.
# Run: tools/train.py configs/bags/faster-rcnn_r50_fpn_rfs-bags-classifier_1x_lvis-v0.5.py
_base_ = 'faster-rcnn_r50_fpn_rfs_1x_lvis-v0.5.py'
base_config = 'faster-rcnn_r50_fpn_rfs_1x_lvis-v0.5.py'
load_from = 'work_dirs/faster-rcnn_r50_fpn_rfs_1x_lvis-v0.5/epoch_12.pth'
default_hooks = dict(train_only=dict(type='TrainOnlyHook', trainable=['roi_head.bbox_head.fc_cls']))
loss_cls = dict(
    _delete_=True, type='BalancedGroupSoftmaxLoss', num_classes=1230, bin_edges=(10, 100, 1000), others_ratio=3.0
)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

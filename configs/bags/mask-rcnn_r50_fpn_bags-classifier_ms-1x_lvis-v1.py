# BAGS, Li et al., CVPR 2020, https://arxiv.org/abs/2006.10408
# The EQL authors' repository on LVIS v1, in percent:
# | mask AP | APr  | APc  | APf  |
# |---------|------|------|------|
# | 23.1    | 13.1 | 22.5 | 28.2 |
# Trains fc_cls for 12 epochs on the finished softmax detector beside it.
# Run: tools/train.py configs/bags/mask-rcnn_r50_fpn_bags-classifier_ms-1x_lvis-v1.py
_base_ = 'mask-rcnn_r50_fpn_softmax_ms-1x_lvis-v1.py'
base_config = 'mask-rcnn_r50_fpn_softmax_ms-1x_lvis-v1.py'
load_from = 'work_dirs/mask-rcnn_r50_fpn_softmax_ms-1x_lvis-v1/epoch_12.pth'
default_hooks = dict(train_only=dict(type='TrainOnlyHook', trainable=['roi_head.bbox_head.fc_cls']))
loss_cls = dict(
    _delete_=True, type='BalancedGroupSoftmaxLoss', num_classes=1203, bin_edges=(10, 100, 1000), others_ratio=8.0
)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

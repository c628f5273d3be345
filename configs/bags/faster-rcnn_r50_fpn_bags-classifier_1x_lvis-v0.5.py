# BAGS, Li et al., CVPR 2020, https://arxiv.org/abs/2006.10408
# The paper's Table 1, row 14, in percent:
# | box AP | APr   | APc   | APf   | AP1   | AP2   | AP3   | AP4   |
# |--------|-------|-------|-------|-------|-------|-------|-------|
# | 25.96  | 17.65 | 25.75 | 29.54 | 11.33 | 27.64 | 25.14 | 29.90 |
# Trains fc_cls for 12 epochs on the finished softmax detector beside it.
# Run: tools/train.py configs/bags/faster-rcnn_r50_fpn_bags-classifier_1x_lvis-v0.5.py
_base_ = 'faster-rcnn_r50_fpn_softmax_1x_lvis-v0.5.py'
base_config = 'faster-rcnn_r50_fpn_softmax_1x_lvis-v0.5.py'
load_from = 'work_dirs/faster-rcnn_r50_fpn_softmax_1x_lvis-v0.5/epoch_12.pth'
default_hooks = dict(train_only=dict(type='TrainOnlyHook', trainable=['roi_head.bbox_head.fc_cls']))
loss_cls = dict(
    _delete_=True, type='BalancedGroupSoftmaxLoss', num_classes=1230, bin_edges=(10, 100, 1000), others_ratio=8.0
)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

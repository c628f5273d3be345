# BAGS, Li et al., CVPR 2020, https://arxiv.org/abs/2006.10408
# The paper's Table 2, in percent:
# | box AP | APr   | APc   | APf   | AP1   | AP2   | AP3   | AP4   |
# |--------|-------|-------|-------|-------|-------|-------|-------|
# | 32.77  | 28.24 | 32.11 | 35.41 | 19.03 | 36.10 | 31.13 | 34.96 |
# Trains fc_cls of all three stages for 12 epochs on the finished softmax
# detector beside it.
# Run: tools/train.py configs/bags/cascade-rcnn_x101-64x4d_fpn_bags-classifier_1x_lvis-v0.5.py
_base_ = 'cascade-rcnn_x101-64x4d_fpn_softmax_1x_lvis-v0.5.py'
base_config = 'cascade-rcnn_x101-64x4d_fpn_softmax_1x_lvis-v0.5.py'
load_from = 'work_dirs/cascade-rcnn_x101-64x4d_fpn_softmax_1x_lvis-v0.5/epoch_12.pth'
default_hooks = dict(train_only=dict(type='TrainOnlyHook', trainable=['roi_head.bbox_head.*.fc_cls']))
loss_cls = dict(type='BalancedGroupSoftmaxLoss', num_classes=1230, bin_edges=(10, 100, 1000), others_ratio=8.0)
bbox_head = [dict(head, loss_cls=loss_cls) for head in _base_.model.roi_head.bbox_head]
model = dict(roi_head=dict(bbox_head=bbox_head))

# BAGS, Li et al., CVPR 2020, https://arxiv.org/abs/2006.10408
# Of the ablation, without a published result: trains everything. The authors
# did it with beta 0.5 for 20 epochs.
# On the finished softmax detector beside it, for 12 epochs.
# Run: tools/train.py configs/bags/faster-rcnn_r50_fpn_bags_1x_lvis-v0.5.py
_base_ = 'faster-rcnn_r50_fpn_softmax_1x_lvis-v0.5.py'
base_config = 'faster-rcnn_r50_fpn_softmax_1x_lvis-v0.5.py'
load_from = 'work_dirs/faster-rcnn_r50_fpn_softmax_1x_lvis-v0.5/epoch_12.pth'
loss_cls = dict(
    _delete_=True, type='BalancedGroupSoftmaxLoss', num_classes=1230, bin_edges=(10, 100, 1000), others_ratio=8.0
)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

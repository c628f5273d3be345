# BAGS, Li et al., CVPR 2020, https://arxiv.org/abs/2006.10408
# Trains fc_cls for 4 epochs on the finished softmax detector beside it.
# Run: tools/train.py configs/photos/faster-rcnn_mobilenet-v2_fpn_bags-classifier_ccp-lt.py
_base_ = 'faster-rcnn_mobilenet-v2_fpn_softmax-classifier_ccp-lt.py'
optim_wrapper = dict(optimizer=dict(lr=3e-4))
loss_cls = dict(
    _delete_=True, type='BalancedGroupSoftmaxLoss', num_classes=54, bin_edges=(10, 100, 1000), others_ratio=8.0
)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

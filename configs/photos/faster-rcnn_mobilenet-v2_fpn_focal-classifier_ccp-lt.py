# Focal-cls of BAGS's Table 1, with sigmoids as focal loss has them.
# Trains fc_cls for 4 epochs on the finished softmax detector beside it.
# Run: tools/train.py configs/photos/faster-rcnn_mobilenet-v2_fpn_focal-classifier_ccp-lt.py
_base_ = 'faster-rcnn_mobilenet-v2_fpn_softmax-classifier_ccp-lt.py'
optim_wrapper = dict(optimizer=dict(lr=1e-4))
loss_cls = dict(_delete_=True, type='RoIFocalLoss', num_classes=54, gamma=2.0, alpha=0.25)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

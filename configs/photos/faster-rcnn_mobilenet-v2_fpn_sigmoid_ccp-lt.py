# Plain sigmoid cross-entropy: EqualizationLoss with no class as tail.
# The row that EQL is compared with.
# Run: tools/train.py configs/photos/faster-rcnn_mobilenet-v2_fpn_sigmoid_ccp-lt.py
_base_ = 'faster-rcnn_mobilenet-v2_fpn_softmax_ccp-lt.py'
loss_cls = dict(_delete_=True, type='EqualizationLoss', num_classes=54, frequency_threshold=0.0)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

# EQL, Tan et al., CVPR 2020, https://arxiv.org/abs/2003.05176
# lambda: the largest with a tail ratio of at most 2 %, as `longtail statistics`
# suggests.
# Trains fc_cls for 4 epochs on the finished softmax detector beside it.
# Run: tools/train.py configs/photos/faster-rcnn_mobilenet-v2_fpn_eql-classifier_ccp-lt.py
_base_ = 'faster-rcnn_mobilenet-v2_fpn_softmax-classifier_ccp-lt.py'
loss_cls = dict(_delete_=True, type='EqualizationLoss', num_classes=54, tail_ratio=0.02)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

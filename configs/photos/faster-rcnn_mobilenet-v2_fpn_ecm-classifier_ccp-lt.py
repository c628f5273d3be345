# ECM, Cho et al., ECCV 2022, https://arxiv.org/abs/2301.09724
# Trains fc_cls for 4 epochs on the finished softmax detector beside it.
# Run: tools/train.py configs/photos/faster-rcnn_mobilenet-v2_fpn_ecm-classifier_ccp-lt.py
_base_ = 'faster-rcnn_mobilenet-v2_fpn_softmax-classifier_ccp-lt.py'
loss_cls = dict(_delete_=True, type='EffectiveClassMarginLoss', num_classes=54)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

# Federated loss, Zhou et al., 2021, https://arxiv.org/abs/2103.07461
# Trains fc_cls for 4 epochs on the finished softmax detector beside it.
# Run: tools/train.py configs/photos/faster-rcnn_mobilenet-v2_fpn_federated-classifier_ccp-lt.py
_base_ = 'faster-rcnn_mobilenet-v2_fpn_softmax-classifier_ccp-lt.py'
loss_cls = dict(_delete_=True, type='FederatedLoss', num_classes=54, num_sampled_classes=50, power=0.5)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

# Federated loss, Zhou et al., 2021, https://arxiv.org/abs/2103.07461
# A batch has some 30 of the 120 classes, and background is one of the 50.
# Trains fc_cls for 4 epochs on the finished softmax detector beside it.
# Run: tools/train.py configs/glyphs/faster-rcnn_r18_fpn_federated-classifier_glyphs.py
_base_ = 'faster-rcnn_r18_fpn_softmax-classifier_glyphs.py'
loss_cls = dict(_delete_=True, type='FederatedLoss', num_classes=120, num_sampled_classes=50, power=0.5)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

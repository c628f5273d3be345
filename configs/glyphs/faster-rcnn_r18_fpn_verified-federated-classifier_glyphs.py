# Federated loss, Zhou et al., 2021, https://arxiv.org/abs/2103.07461
# The classes that the image was checked for, in the place of drawn ones.
# Trains fc_cls for 4 epochs on the finished softmax detector beside it.
# Run: tools/train.py configs/glyphs/faster-rcnn_r18_fpn_verified-federated-classifier_glyphs.py
_base_ = 'faster-rcnn_r18_fpn_federated-classifier_glyphs.py'
base_config = 'faster-rcnn_r18_fpn_softmax_glyphs.py'
train_dataloader = dict(dataset=dict(type='FederatedAnnotationFileDataset'))
loss_cls = dict(_delete_=True, type='VerifiedFederatedLoss', num_classes=120)
model = dict(
    roi_head=dict(type='LongTailStandardRoIHead', bbox_head=dict(type='LongTailShared2FCBBoxHead', loss_cls=loss_cls))
)

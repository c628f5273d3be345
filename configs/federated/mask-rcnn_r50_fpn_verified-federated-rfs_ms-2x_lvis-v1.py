# Federated loss, Zhou et al., 2021, https://arxiv.org/abs/2103.07461
# The classes that the image was checked for, in the place of drawn ones.
# No published result.
# Run: tools/train.py configs/federated/mask-rcnn_r50_fpn_verified-federated-rfs_ms-2x_lvis-v1.py
_base_ = 'mask-rcnn_r50_fpn_federated-rfs_ms-2x_lvis-v1.py'
train_dataloader = dict(dataset=dict(dataset=dict(type='FederatedLVISV1Dataset')))
loss_cls = dict(_delete_=True, type='VerifiedFederatedLoss', num_classes=1203, prior_prob=0.01)
model = dict(roi_head=dict(type='LongTailStandardRoIHead', bbox_head=dict(loss_cls=loss_cls)))

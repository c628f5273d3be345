# Federated loss, Zhou et al., 2021, https://arxiv.org/abs/2103.07461
# RFS, Gupta et al., LVIS, CVPR 2019, https://arxiv.org/abs/1908.03195
# No published result in Mask R-CNN with R50. CenterNet2 with R50, 1x, from its
# repository, box AP in percent:
# |           | box AP |
# |-----------|--------|
# | sigmoid   | 26.5   |
# | federated | 28.3   |
# Theirs: 50 classes per batch, image_count ** 0.5, prior 0.01, RFS with 1e-3.
# Run: tools/train.py configs/federated/mask-rcnn_r50_fpn_federated-rfs_ms-2x_lvis-v1.py
_base_ = '../bags/mask-rcnn_r50_fpn_rfs_ms-2x_lvis-v1.py'
loss_cls = dict(
    _delete_=True, type='FederatedLoss', num_classes=1203, num_sampled_classes=50, power=0.5, prior_prob=0.01
)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

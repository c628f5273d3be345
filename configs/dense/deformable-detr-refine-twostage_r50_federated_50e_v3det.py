# Federated loss, Zhou et al., 2021, https://arxiv.org/abs/2103.07461, in
# Deformable DETR. No published result. V3Det, Wang et al., ICCV 2023, has
# 13,204 classes. Each layer of the decoder draws its own 50.
# Run: tools/train.py configs/dense/deformable-detr-refine-twostage_r50_federated_50e_v3det.py
_base_ = 'deformable-detr-refine-twostage_r50_eql_50e_v3det.py'
loss_cls = dict(_delete_=True, type='DenseFederatedLoss', num_classes=13204, use_sigmoid=True, num_sampled_classes=50)
model = dict(bbox_head=dict(loss_cls=loss_cls))

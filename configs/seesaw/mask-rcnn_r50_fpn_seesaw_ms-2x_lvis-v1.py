# Seesaw Loss, Wang et al., CVPR 2021, https://arxiv.org/abs/2008.10032
# mmdet's README on LVIS v1, in percent:
# | mask AP | box AP |
# |---------|--------|
# | 25.0    | 25.6   |
# Run: tools/train.py configs/seesaw/mask-rcnn_r50_fpn_seesaw_ms-2x_lvis-v1.py
_base_ = '../bags/mask-rcnn_r50_fpn_softmax_ms-2x_lvis-v1.py'
cls_predictor_cfg = dict(type='NormedLinear', temperature=20)
loss_cls = dict(_delete_=True, type='SyncSeesawLoss', num_classes=1203, p=0.8, q=2.0)
model = dict(roi_head=dict(bbox_head=dict(cls_predictor_cfg=cls_predictor_cfg, loss_cls=loss_cls)))

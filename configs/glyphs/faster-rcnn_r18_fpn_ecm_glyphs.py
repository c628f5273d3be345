# ECM, Cho et al., ECCV 2022, https://arxiv.org/abs/2301.09724
# With the cosine classifier of the published recipe.
# Run: tools/train.py configs/glyphs/faster-rcnn_r18_fpn_ecm_glyphs.py
_base_ = 'faster-rcnn_r18_fpn_softmax_glyphs.py'
loss_cls = dict(_delete_=True, type='EffectiveClassMarginLoss', num_classes=120)
cls_predictor_cfg = dict(type='NormedLinear', temperature=20)
model = dict(roi_head=dict(bbox_head=dict(cls_predictor_cfg=cls_predictor_cfg, loss_cls=loss_cls)))

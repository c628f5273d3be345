# ECM, Cho et al., ECCV 2022, https://arxiv.org/abs/2301.09724
# Trains fc_cls for 4 epochs on the finished softmax detector beside it.
# Run: tools/train.py configs/glyphs/faster-rcnn_r18_fpn_ecm-classifier_glyphs.py
_base_ = 'faster-rcnn_r18_fpn_softmax-classifier_glyphs.py'
loss_cls = dict(_delete_=True, type='EffectiveClassMarginLoss', num_classes=120)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

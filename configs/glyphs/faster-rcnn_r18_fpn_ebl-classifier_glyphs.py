# EBL, Feng et al., ICCV 2021, https://arxiv.org/abs/2108.07507
# Without the memory of features that LOCE adds.
# Trains fc_cls for 4 epochs on the finished softmax detector beside it.
# Run: tools/train.py configs/glyphs/faster-rcnn_r18_fpn_ebl-classifier_glyphs.py
_base_ = 'faster-rcnn_r18_fpn_softmax-classifier_glyphs.py'
loss_cls = dict(_delete_=True, type='EquilibriumLoss', num_classes=120)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

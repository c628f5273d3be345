# EBL, Feng et al., ICCV 2021, https://arxiv.org/abs/2108.07507
# Without the memory of features that LOCE adds.
# Trains fc_cls anew for 8 epochs on the finished softmax detector of glyphs.
# Run: tools/train.py configs/glyphs_400/faster-rcnn_r18_fpn_ebl-classifier_glyphs-400.py
_base_ = 'faster-rcnn_r18_fpn_softmax-classifier_glyphs-400.py'
loss_cls = dict(_delete_=True, type='EquilibriumLoss', num_classes={{_base_.num_classes}})
optim_wrapper = dict(optimizer=dict(lr=0.04))  # docs/vocabulary.md
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

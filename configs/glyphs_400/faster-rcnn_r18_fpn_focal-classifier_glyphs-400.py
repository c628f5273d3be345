# Focal-cls of BAGS's Table 1, with sigmoids as focal loss has them.
# Trains fc_cls anew for 8 epochs on the finished softmax detector of glyphs.
# Run: tools/train.py configs/glyphs_400/faster-rcnn_r18_fpn_focal-classifier_glyphs-400.py
_base_ = 'faster-rcnn_r18_fpn_softmax-classifier_glyphs-400.py'
loss_cls = dict(_delete_=True, type='RoIFocalLoss', num_classes={{_base_.num_classes}}, gamma=2.0, alpha=0.25)
optim_wrapper = dict(optimizer=dict(lr=0.16))  # docs/vocabulary.md
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

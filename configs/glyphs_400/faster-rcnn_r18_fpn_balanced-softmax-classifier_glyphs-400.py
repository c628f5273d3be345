# Balanced Softmax, Ren et al., NeurIPS 2020, https://arxiv.org/abs/2007.10740
# Trains fc_cls anew for 8 epochs on the finished softmax detector of glyphs.
# Run: tools/train.py configs/glyphs_400/faster-rcnn_r18_fpn_balanced-softmax-classifier_glyphs-400.py
_base_ = 'faster-rcnn_r18_fpn_softmax-classifier_glyphs-400.py'
loss_cls = dict(_delete_=True, type='BalancedSoftmaxLoss', num_classes={{_base_.num_classes}})
optim_wrapper = dict(optimizer=dict(lr=0.04))  # docs/vocabulary.md
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

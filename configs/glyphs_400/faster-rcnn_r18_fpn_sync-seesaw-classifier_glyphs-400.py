# Seesaw Loss, Wang et al., CVPR 2021, https://arxiv.org/abs/2008.10032
# As mmdet's SeesawLoss, with the counts of all ranks.
# Trains fc_cls anew for 8 epochs on the finished softmax detector of glyphs.
# Run: tools/train.py configs/glyphs_400/faster-rcnn_r18_fpn_sync-seesaw-classifier_glyphs-400.py
_base_ = 'faster-rcnn_r18_fpn_softmax-classifier_glyphs-400.py'
loss_cls = dict(_delete_=True, type='SyncSeesawLoss', num_classes={{_base_.num_classes}}, p=0.8, q=2.0)
optim_wrapper = dict(optimizer=dict(lr=0.02))  # docs/vocabulary.md
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

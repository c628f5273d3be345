# Seesaw Loss, Wang et al., CVPR 2021, https://arxiv.org/abs/2008.10032
# As mmdet's SeesawLoss of seesaw_glyphs, with the counts of all ranks.
# Trains fc_cls for 4 epochs on the finished softmax detector beside it.
# Run: tools/train.py configs/glyphs/faster-rcnn_r18_fpn_sync-seesaw-classifier_glyphs.py
_base_ = 'faster-rcnn_r18_fpn_softmax-classifier_glyphs.py'
loss_cls = dict(_delete_=True, type='SyncSeesawLoss', num_classes=120, p=0.8, q=2.0)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

# Focal-cls of BAGS's Table 1, with sigmoids as focal loss has them.
# Trains fc_cls for 4 epochs on the finished softmax detector beside it.
# Run: tools/train.py configs/glyphs/faster-rcnn_r18_fpn_focal-classifier_glyphs.py
_base_ = 'faster-rcnn_r18_fpn_softmax-classifier_glyphs.py'
loss_cls = dict(_delete_=True, type='RoIFocalLoss', num_classes=120, gamma=2.0, alpha=0.25)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

# Plain sigmoid cross-entropy: EqualizationLoss with no class as tail.
# The row that EQL as a classifier stage is compared with.
# Trains fc_cls for 4 epochs on the finished softmax detector beside it.
# Run: tools/train.py configs/glyphs/faster-rcnn_r18_fpn_sigmoid-classifier_glyphs.py
_base_ = 'faster-rcnn_r18_fpn_softmax-classifier_glyphs.py'
loss_cls = dict(_delete_=True, type='EqualizationLoss', num_classes=120, frequency_threshold=0.0)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

# Plain sigmoid cross-entropy: EqualizationLoss with no class as tail.
# The row that EQL is compared with.
# Run: tools/train.py configs/glyphs/faster-rcnn_r18_fpn_sigmoid_glyphs.py
_base_ = 'faster-rcnn_r18_fpn_softmax_glyphs.py'
loss_cls = dict(_delete_=True, type='EqualizationLoss', num_classes=120, frequency_threshold=0.0)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

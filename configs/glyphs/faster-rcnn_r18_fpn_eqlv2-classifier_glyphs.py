# EQLv2, Tan et al., CVPR 2021, https://arxiv.org/abs/2012.08548
# No class statistics are needed.
# Trains fc_cls for 4 epochs on the finished softmax detector beside it.
# Run: tools/train.py configs/glyphs/faster-rcnn_r18_fpn_eqlv2-classifier_glyphs.py
_base_ = 'faster-rcnn_r18_fpn_softmax-classifier_glyphs.py'
optim_wrapper = dict(optimizer=dict(lr=1e-2))  # docs/benchmark.md
loss_cls = dict(_delete_=True, type='EqualizationLossV2', num_classes=120)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

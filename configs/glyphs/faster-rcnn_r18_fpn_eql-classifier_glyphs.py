# EQL, Tan et al., CVPR 2020, https://arxiv.org/abs/2003.05176
# Mean of 3 seeds, in percent:
# |                    | APr  | APc  | APf  |
# |--------------------|------|------|------|
# | eql-classifier     | 15.6 | 32.1 | 50.1 |
# | sigmoid-classifier | 14.0 | 34.4 | 50.1 |
# docs/glyphs.md explains the difference. Trains fc_cls for 4 epochs on the
# finished softmax detector beside it.
# Run: tools/train.py configs/glyphs/faster-rcnn_r18_fpn_eql-classifier_glyphs.py
_base_ = 'faster-rcnn_r18_fpn_softmax-classifier_glyphs.py'
loss_cls = dict(_delete_=True, type='EqualizationLoss', num_classes=120, tail_ratio=0.091)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

# EQL, Tan et al., CVPR 2020, https://arxiv.org/abs/2003.05176
# Mean of 3 seeds, in percent:
# |         | APr | APc  | APf  |
# |---------|-----|------|------|
# | eql     | 9.6 | 28.1 | 51.6 |
# | sigmoid | 8.0 | 31.6 | 51.4 |
# docs/glyphs.md explains the loss of common classes. lambda: the largest with
# a tail ratio of at most 9 %.
# Run: tools/train.py configs/glyphs/faster-rcnn_r18_fpn_eql_glyphs.py
_base_ = 'faster-rcnn_r18_fpn_softmax_glyphs.py'
loss_cls = dict(_delete_=True, type='EqualizationLoss', num_classes=120, tail_ratio=0.091)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

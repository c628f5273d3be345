# DropLoss, Hsieh et al., AAAI 2021, https://arxiv.org/abs/2104.06402
# lambda: the largest with a tail ratio of at most 9 %, as for EQL.
# Run: tools/train.py configs/glyphs/faster-rcnn_r18_fpn_droploss_glyphs.py
_base_ = 'faster-rcnn_r18_fpn_softmax_glyphs.py'
loss_cls = dict(_delete_=True, type='DropLoss', num_classes=120, tail_ratio=0.091)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

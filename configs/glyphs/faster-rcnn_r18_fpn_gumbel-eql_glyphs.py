# GOL, Alexandridis et al., ECCV 2022, https://arxiv.org/abs/2207.10936
# lambda: the largest with a tail ratio of at most 9 %, as for EQL.
# Run: tools/train.py configs/glyphs/faster-rcnn_r18_fpn_gumbel-eql_glyphs.py
_base_ = 'faster-rcnn_r18_fpn_softmax_glyphs.py'
loss_cls = dict(_delete_=True, type='GumbelEqualizationLoss', num_classes=120, tail_ratio=0.091)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

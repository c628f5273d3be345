# GOL, Alexandridis et al., ECCV 2022, https://arxiv.org/abs/2207.10936
# lambda: the largest with a tail ratio of at most 9 %, as for EQL.
# Trains fc_cls for 4 epochs on the finished softmax detector beside it.
# Run: tools/train.py configs/glyphs/faster-rcnn_r18_fpn_gumbel-droploss-classifier_glyphs.py
_base_ = 'faster-rcnn_r18_fpn_softmax-classifier_glyphs.py'
optim_wrapper = dict(optimizer=dict(lr=1e-3))  # docs/benchmark.md
loss_cls = dict(_delete_=True, type='GumbelDropLoss', num_classes=120, tail_ratio=0.091)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

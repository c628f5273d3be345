# Re-weight-cls of BAGS's Table 1: class-balanced weights, clipped.
# Trains fc_cls anew for 8 epochs on the finished softmax detector of glyphs.
# Run: tools/train.py configs/glyphs_400/faster-rcnn_r18_fpn_reweighted-classifier_glyphs-400.py
_base_ = 'faster-rcnn_r18_fpn_softmax-classifier_glyphs-400.py'
loss_cls = dict(
    _delete_=True,
    type='ReweightedSoftmaxLoss',
    num_classes={{_base_.num_classes}},
    class_weight=dict(type='EffectiveNumberClassWeight', beta=0.999),
    weight_range=(0.1, 5.0),
)
optim_wrapper = dict(optimizer=dict(lr=0.08))  # docs/vocabulary.md
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

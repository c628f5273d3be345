# GOL, Alexandridis et al., ECCV 2022, https://arxiv.org/abs/2207.10936
# lambda: the largest with a tail ratio of at most 2 %, as for EQL.
# Trains fc_cls for 4 epochs on the finished softmax detector beside it.
# Run: tools/train.py configs/photos/faster-rcnn_mobilenet-v2_fpn_gumbel-droploss-classifier_ccp-lt.py
_base_ = 'faster-rcnn_mobilenet-v2_fpn_softmax-classifier_ccp-lt.py'
optim_wrapper = dict(optimizer=dict(lr=3e-4))
loss_cls = dict(_delete_=True, type='GumbelDropLoss', num_classes=54, tail_ratio=0.02)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

# Federated loss, Zhou et al., 2021, https://arxiv.org/abs/2103.07461
# Trains fc_cls anew for 8 epochs on the finished softmax detector of glyphs.
# Run: tools/train.py configs/glyphs_400/faster-rcnn_r18_fpn_federated-classifier_glyphs-400.py
_base_ = 'faster-rcnn_r18_fpn_softmax-classifier_glyphs-400.py'
loss_cls = dict(
    _delete_=True, type='FederatedLoss', num_classes={{_base_.num_classes}}, num_sampled_classes=50, power=0.5
)
optim_wrapper = dict(optimizer=dict(lr=0.01))  # docs/vocabulary.md
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

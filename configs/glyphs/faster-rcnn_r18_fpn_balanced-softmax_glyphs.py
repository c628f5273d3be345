# Balanced Softmax, Ren et al., NeurIPS 2020, https://arxiv.org/abs/2007.10740
# Run: tools/train.py configs/glyphs/faster-rcnn_r18_fpn_balanced-softmax_glyphs.py
_base_ = 'faster-rcnn_r18_fpn_softmax_glyphs.py'
loss_cls = dict(_delete_=True, type='BalancedSoftmaxLoss', num_classes=120)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

# SEQL, Tan et al., CVPR 2020, section 3.3, https://arxiv.org/abs/2003.05176
# Trains fc_cls for 4 epochs on the finished softmax detector beside it.
# Run: tools/train.py configs/glyphs/faster-rcnn_r18_fpn_seql-classifier_glyphs.py
_base_ = 'faster-rcnn_r18_fpn_softmax-classifier_glyphs.py'
model = dict(
    roi_head=dict(bbox_head=dict(loss_cls=dict(_delete_=True, type='SoftmaxEqualizationLoss', num_classes=120)))
)

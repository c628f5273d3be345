# BAGS, Li et al., CVPR 2020, https://arxiv.org/abs/2006.10408
# The paper's Table 1, row 6, in percent:
# | box AP | APr   | APc   | APf   | AP1  | AP2   | AP3   | AP4   |
# |--------|-------|-------|-------|------|-------|-------|-------|
# | 23.48  | 11.47 | 22.41 | 29.61 | 6.34 | 22.91 | 23.88 | 30.12 |
# Weights 1 / count, divided by their mean, from 0.1 to 5. Trains everything
# for 12 epochs on the finished softmax detector beside it.
# Run: tools/train.py configs/bags/faster-rcnn_r50_fpn_reweighted_1x_lvis-v0.5.py
_base_ = 'faster-rcnn_r50_fpn_softmax_1x_lvis-v0.5.py'
base_config = 'faster-rcnn_r50_fpn_softmax_1x_lvis-v0.5.py'
load_from = 'work_dirs/faster-rcnn_r50_fpn_softmax_1x_lvis-v0.5/epoch_12.pth'
loss_cls = dict(
    _delete_=True,
    type='ReweightedSoftmaxLoss',
    num_classes=1230,
    class_weight=dict(type='InverseClassWeight'),
    weight_range=(0.1, 5.0),
)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

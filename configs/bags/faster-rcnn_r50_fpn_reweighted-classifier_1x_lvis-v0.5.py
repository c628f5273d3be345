# BAGS, Li et al., CVPR 2020, https://arxiv.org/abs/2006.10408
# Class-balanced loss, Cui et al., CVPR 2019, https://arxiv.org/abs/1901.05555
# The paper's Table 1, row 7, in percent:
# | box AP | APr   | APc   | APf   | AP1   | AP2   | AP3   | AP4   |
# |--------|-------|-------|-------|-------|-------|-------|-------|
# | 24.66  | 14.16 | 23.51 | 30.28 | 10.04 | 24.12 | 24.57 | 31.07 |
# Trains fc_cls for 12 epochs on the finished softmax detector beside it. With
# 8 x 4 images and the LR of 8 x 2, as released.
# Run: tools/train.py configs/bags/faster-rcnn_r50_fpn_reweighted-classifier_1x_lvis-v0.5.py
_base_ = 'faster-rcnn_r50_fpn_softmax_1x_lvis-v0.5.py'
base_config = 'faster-rcnn_r50_fpn_softmax_1x_lvis-v0.5.py'
load_from = 'work_dirs/faster-rcnn_r50_fpn_softmax_1x_lvis-v0.5/epoch_12.pth'
train_dataloader = dict(batch_size=4)
auto_scale_lr = dict(base_batch_size=32)
default_hooks = dict(train_only=dict(type='TrainOnlyHook', trainable=['roi_head.bbox_head.fc_cls']))
loss_cls = dict(
    _delete_=True,
    type='ReweightedSoftmaxLoss',
    num_classes=1230,
    class_weight=dict(type='EffectiveNumberClassWeight', beta=0.999),
    weight_range=(0.1, 5.0),
)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

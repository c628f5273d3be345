# EQL, Tan et al., CVPR 2020, https://arxiv.org/abs/2003.05176
# Expected against sigmoid-classifier, 3 seeds: APr 14.4 (13.1), APc 30.9
# (32.2), APf 49.8 (49.8); docs/glyphs.md says why.
# Trains fc_cls for 4 epochs on the finished softmax detector beside it.
# Run: tools/train.py configs/glyphs/faster-rcnn_r18_fpn_eql-classifier_glyphs.py
_base_ = 'faster-rcnn_r18_fpn_softmax_glyphs.py'
base_config = 'faster-rcnn_r18_fpn_softmax_glyphs.py'
load_from = 'work_dirs/faster-rcnn_r18_fpn_softmax_glyphs/epoch_5.pth'
default_hooks = dict(
    train_only=dict(
        type='TrainOnlyHook', trainable=['roi_head.bbox_head.fc_cls']))
train_cfg = dict(max_epochs=4, val_interval=4)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=100),
    dict(type='CosineAnnealingLR', T_max=4, convert_to_iter_based=True)
]
loss_cls = dict(
    _delete_=True, type='EqualizationLoss', num_classes=120, tail_ratio=0.09)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

# The control of the stages beside it: the same stage without another loss.
# Trains fc_cls for 4 epochs on the finished softmax detector beside it.
# Run: tools/train.py configs/glyphs/faster-rcnn_r18_fpn_softmax-classifier_glyphs.py
_base_ = 'faster-rcnn_r18_fpn_softmax_glyphs.py'
base_config = 'faster-rcnn_r18_fpn_softmax_glyphs.py'
load_from = 'work_dirs/faster-rcnn_r18_fpn_softmax_glyphs/epoch_5.pth'
default_hooks = dict(train_only=dict(type='TrainOnlyHook', trainable=['roi_head.bbox_head.fc_cls']))
train_cfg = dict(max_epochs=4, val_interval=4)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=100),
    dict(type='CosineAnnealingLR', T_max=4, convert_to_iter_based=True),
]
optim_wrapper = dict(optimizer=dict(lr=3e-3))  # docs/benchmark.md

# cRT, Kang et al., ICLR 2020, https://arxiv.org/abs/1910.09217
# The EQL authors' repository on LVIS v1, in percent:
# | mask AP | APr  | APc  | APf  |
# |---------|------|------|------|
# | 22.1    | 11.9 | 20.2 | 29.0 |
# Re-initialises fc_cls and trains it with class-aware sampling.
# Run: tools/train.py configs/bags/mask-rcnn_r50_fpn_crt_ms-1x_lvis-v1.py
_base_ = [
    '../_base_/models/mask-rcnn_r50_fpn_lvis-v1.py',
    '../_base_/datasets/lvis_v1_640-800.py',
    '../_base_/schedules/classifier_75000it.py',
    '../_base_/longtail_iteration_runtime.py',
]
base_config = 'mask-rcnn_r50_fpn_softmax_ms-1x_lvis-v1.py'
load_from = 'work_dirs/mask-rcnn_r50_fpn_softmax_ms-1x_lvis-v1/epoch_12.pth'
default_hooks = dict(
    restart_classifier=dict(type='RestartClassifierHook'),
    train_only=dict(type='TrainOnlyHook', trainable=['roi_head.bbox_head.fc_cls']),
)
train_dataloader = dict(sampler=dict(_delete_=True, type='ClassAwareImageSampler'))

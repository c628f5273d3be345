# cRT, Kang et al., ICLR 2020, https://arxiv.org/abs/1910.09217
# Not in BAGS's Table 1: no published result. Length and sampling are those of
# the EQL authors' repository, LR that of this table.
# Re-initialises fc_cls and trains it with class-aware sampling.
# Run: tools/train.py configs/bags/faster-rcnn_r50_fpn_crt_1x_lvis-v0.5.py
_base_ = [
    '../_base_/models/faster-rcnn_r50_fpn_bags-paper.py',
    '../_base_/datasets/lvis_v0.5_boxes_bags-paper.py',
    '../_base_/schedules/classifier_75000it.py',
    '../_base_/longtail_iteration_runtime.py',
]
base_config = 'faster-rcnn_r50_fpn_softmax_1x_lvis-v0.5.py'
load_from = 'work_dirs/faster-rcnn_r50_fpn_softmax_1x_lvis-v0.5/epoch_12.pth'
default_hooks = dict(
    restart_classifier=dict(type='RestartClassifierHook'),
    train_only=dict(type='TrainOnlyHook', trainable=['roi_head.bbox_head.fc_cls']),
)
train_dataloader = dict(sampler=dict(_delete_=True, type='ClassAwareImageSampler'))
optim_wrapper = dict(optimizer=dict(lr=0.01))

# LWS, Kang et al., ICLR 2020, https://arxiv.org/abs/1910.09217
# The EQL authors' repository on LVIS v1, in percent:
# | mask AP | APr | APc  | APf  |
# |---------|-----|------|------|
# | 17.0    | 2.0 | 13.5 | 27.4 |
# Trains one factor per row of fc_cls, with class-aware sampling.
# tools/model_converters/edit_classifier.py fold makes a plain softmax detector
# of it.
# Run: tools/train.py configs/bags/mask-rcnn_r50_fpn_lws_ms-1x_lvis-v1.py
_base_ = [
    '../_base_/models/mask-rcnn_r50_fpn_lvis-v1.py',
    '../_base_/datasets/lvis_v1_640-800.py',
    '../_base_/schedules/classifier_75000it.py',
    '../_base_/longtail_iteration_runtime.py',
]
base_config = 'mask-rcnn_r50_fpn_softmax_ms-1x_lvis-v1.py'
load_from = 'work_dirs/mask-rcnn_r50_fpn_softmax_ms-1x_lvis-v1/epoch_12.pth'
default_hooks = dict(train_only=dict(type='TrainOnlyHook', trainable=['roi_head.bbox_head.fc_cls.scale']))
train_dataloader = dict(sampler=dict(_delete_=True, type='ClassAwareImageSampler'))
scaled = dict(cls_predictor_cfg=dict(type='ScaledLinear'))
model = dict(roi_head=dict(bbox_head=scaled))

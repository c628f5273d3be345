# LWS, Kang et al., ICLR 2020, https://arxiv.org/abs/1910.09217
# Not in BAGS's Table 1: no published result. Length and sampling are those of
# the EQL authors' repository, LR that of this table.
# Trains one factor per row of fc_cls, with class-aware sampling.
# tools/model_converters/edit_classifier.py fold folds the factors into a plain softmax detector.
# Run: tools/train.py configs/bags/faster-rcnn_r50_fpn_lws_1x_lvis-v0.5.py
_base_ = [
    '../_base_/models/faster-rcnn_r50_fpn_bags-paper.py',
    '../_base_/datasets/lvis_v0.5_boxes_bags-paper.py',
    '../_base_/schedules/classifier_75000it.py',
    '../_base_/longtail_iteration_runtime.py',
]
base_config = 'faster-rcnn_r50_fpn_softmax_1x_lvis-v0.5.py'
load_from = 'work_dirs/faster-rcnn_r50_fpn_softmax_1x_lvis-v0.5/epoch_12.pth'
default_hooks = dict(train_only=dict(type='TrainOnlyHook', trainable=['roi_head.bbox_head.fc_cls.scale']))
train_dataloader = dict(sampler=dict(_delete_=True, type='ClassAwareImageSampler'))
scaled = dict(cls_predictor_cfg=dict(type='ScaledLinear'))
model = dict(roi_head=dict(bbox_head=scaled))
optim_wrapper = dict(optimizer=dict(lr=0.01))

# 400 classes on the features of a detector of 120: docs/vocabulary.md.
# Trains fc_cls anew for 8 epochs on the finished softmax detector of glyphs.
# Run: tools/train.py configs/glyphs_400/faster-rcnn_r18_fpn_softmax-classifier_glyphs-400.py
_base_ = [
    '../_base_/models/faster-rcnn_r18_fpn_narrow.py',
    '../_base_/datasets/glyphs_400.py',
    '../_base_/schedules/glyphs_classifier.py',
    '../_base_/longtail_runtime.py',
]
base_config = '../glyphs/faster-rcnn_r18_fpn_softmax_glyphs.py'
load_from = 'work_dirs/faster-rcnn_r18_fpn_softmax_glyphs/epoch_5.pth'
default_hooks = dict(
    train_only=dict(type='TrainOnlyHook', trainable=['roi_head.bbox_head.fc_cls']),
    restart_classifier=dict(type='RestartClassifierHook'),
)
optim_wrapper = dict(optimizer=dict(lr=0.08))  # docs/vocabulary.md
model = dict(roi_head=dict(bbox_head=dict(num_classes={{_base_.num_classes}})))

# EQL, Tan et al., CVPR 2020, https://arxiv.org/abs/2003.05176, in RetinaNet.
# No published result; docs/support.md says why little is to be expected.
# The loss starts at some 300, focal loss at 1: hence the clipped gradients.
# lambda = 1.0914e-3 of all 100,170 images: 815 tail classes.
# Run: tools/train.py configs/dense/retinanet_r50_fpn_eql_1x_lvis-v1.py
_base_ = [
    'mmdet::_base_/models/retinanet_r50_fpn.py',
    'mmdet::_base_/datasets/lvis_v1_instance.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    '../_base_/longtail_default_runtime.py',
]
train_dataloader = dict(dataset=dict(oversample_thr=0.0))  # no RFS
val_evaluator = dict(metric='bbox')
test_evaluator = dict(metric='bbox')
loss_cls = dict(
    _delete_=True, type='DenseEqualizationLoss', num_classes=1203, use_sigmoid=True, frequency_threshold=1.0914e-3
)
model = dict(bbox_head=dict(num_classes=1203, loss_cls=loss_cls), test_cfg=dict(score_thr=1e-4, max_per_img=300))
optim_wrapper = dict(optimizer=dict(lr=0.01), clip_grad=dict(max_norm=10.0))

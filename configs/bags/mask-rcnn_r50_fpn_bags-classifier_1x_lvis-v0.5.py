# BAGS, Li et al., CVPR 2020, https://arxiv.org/abs/2006.10408
# The paper's Table 3, in percent:
# |      | AP    | APr   | APc   | APf   | AP1   | AP2   | AP3   | AP4   |
# |------|-------|-------|-------|-------|-------|-------|-------|-------|
# | mask | 26.25 | 17.97 | 26.91 | 28.74 | 12.81 | 28.28 | 25.15 | 29.61 |
# | box  | 25.76 | 15.03 | 25.45 | 30.42 | 9.65  | 26.20 | 26.09 | 30.45 |
# Trains fc_cls for 12 epochs on the finished softmax detector beside it.
# Run: tools/train.py configs/bags/mask-rcnn_r50_fpn_bags-classifier_1x_lvis-v0.5.py
_base_ = 'mask-rcnn_r50_fpn_softmax_1x_lvis-v0.5.py'
base_config = 'mask-rcnn_r50_fpn_softmax_1x_lvis-v0.5.py'
load_from = 'work_dirs/mask-rcnn_r50_fpn_softmax_1x_lvis-v0.5/epoch_12.pth'
train_dataloader = dict(batch_size=2)
auto_scale_lr = dict(base_batch_size=16)
default_hooks = dict(train_only=dict(type='TrainOnlyHook', trainable=['roi_head.bbox_head.fc_cls']))
loss_cls = dict(
    _delete_=True, type='BalancedGroupSoftmaxLoss', num_classes=1230, bin_edges=(10, 100, 1000), others_ratio=8.0
)
model = dict(
    roi_head=dict(bbox_head=dict(loss_cls=loss_cls)), test_cfg=dict(rcnn=dict(score_thr=0.001, max_per_img=300))
)

# BAGS, Li et al., CVPR 2020, https://arxiv.org/abs/2006.10408
# The paper's Table 1, row 3, in percent:
# | box AP | APr  | APc   | APf   | AP1  | AP2   | AP3   | AP4   |
# |--------|------|-------|-------|------|-------|-------|-------|
# | 22.28  | 5.67 | 23.54 | 27.34 | 0.27 | 22.58 | 23.89 | 27.43 |
# Trains everything on the classes with fewer than 100 boxes, for 10 epochs.
# The README says how its two files are written.
# Run: tools/train.py configs/bags/faster-rcnn_r50_fpn_finetune-tail_1x_lvis-v0.5.py
_base_ = 'faster-rcnn_r50_fpn_softmax_1x_lvis-v0.5.py'
base_config = 'faster-rcnn_r50_fpn_softmax_1x_lvis-v0.5.py'
load_from = 'work_dirs/faster-rcnn_r50_fpn_softmax_1x_lvis-v0.5/epoch_12.pth'
ann_file = 'annotations/lvis_v0.5_train_fewer-than-100.json'
class_statistics = 'data/lvis_v0.5/annotations/lvis_v0.5_train_statistics.json'
train_dataloader = dict(dataset=dict(ann_file=ann_file))
default_hooks = dict(class_statistics=dict(class_statistics=class_statistics))
train_cfg = dict(max_epochs=10)
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 3, by_epoch=False, end=500),
    dict(type='MultiStepLR', milestones=[7], gamma=0.1, end=10),
]
optim_wrapper = dict(optimizer=dict(lr=1e-4))

# Focal loss, Lin et al., ICCV 2017, https://arxiv.org/abs/1708.02002
# BAGS's Table 1, row 9, in percent:
# | box AP | APr  | APc   | APf   | AP1  | AP2   | AP3   | AP4   |
# |--------|------|-------|-------|------|-------|-------|-------|
# | 19.29  | 6.60 | 19.81 | 23.71 | 1.64 | 19.30 | 20.64 | 23.70 |
# Not comparable: the authors' loss had a background column, another
# normaliser, and a softmax at test time; see the README. Trains fc_cls for 12
# epochs on the finished softmax detector beside it.
# Run: tools/train.py configs/bags/faster-rcnn_r50_fpn_focal-classifier_1x_lvis-v0.5.py
_base_ = 'faster-rcnn_r50_fpn_focal_1x_lvis-v0.5.py'
base_config = 'faster-rcnn_r50_fpn_softmax_1x_lvis-v0.5.py'
load_from = 'work_dirs/faster-rcnn_r50_fpn_softmax_1x_lvis-v0.5/epoch_12.pth'
default_hooks = dict(train_only=dict(type='TrainOnlyHook', trainable=['roi_head.bbox_head.fc_cls']))

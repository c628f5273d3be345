# Focal loss, Lin et al., ICCV 2017, https://arxiv.org/abs/1708.02002
# BAGS's Table 1, row 8, in percent:
# | box AP | APr  | APc   | APf   | AP1  | AP2   | AP3   | AP4   |
# |--------|------|-------|-------|------|-------|-------|-------|
# | 11.12  | 2.74 | 11.13 | 14.46 | 0.00 | 10.24 | 13.36 | 13.17 |
# Not comparable: the authors' loss had a background column, another
# normaliser, and a softmax at test time; see the README. Trains everything
# for 12 epochs on the finished softmax detector beside it.
# Run: tools/train.py configs/bags/faster-rcnn_r50_fpn_focal_1x_lvis-v0.5.py
_base_ = 'faster-rcnn_r50_fpn_softmax_1x_lvis-v0.5.py'
base_config = 'faster-rcnn_r50_fpn_softmax_1x_lvis-v0.5.py'
load_from = 'work_dirs/faster-rcnn_r50_fpn_softmax_1x_lvis-v0.5/epoch_12.pth'
loss_cls = dict(_delete_=True, type='RoIFocalLoss', num_classes=1230, gamma=2.0, alpha=0.25)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

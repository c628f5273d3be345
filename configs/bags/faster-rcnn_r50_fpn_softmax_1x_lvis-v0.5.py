# BAGS, Li et al., CVPR 2020, https://arxiv.org/abs/2006.10408
# The detector that the other rows of Table 1 start from.
# The paper's Table 1, row 1, in percent:
# | box AP | APr  | APc   | APf   | AP1  | AP2   | AP3   | AP4   |
# |--------|------|-------|-------|------|-------|-------|-------|
# | 20.98  | 4.13 | 19.70 | 29.30 | 0.00 | 17.34 | 24.00 | 29.99 |
# From mmdet's Faster R-CNN on COCO, 2x; class-wise layers are re-initialised.
# Run: tools/train.py configs/bags/faster-rcnn_r50_fpn_softmax_1x_lvis-v0.5.py
_base_ = [
    '../_base_/models/faster-rcnn_r50_fpn_bags-paper.py',
    '../_base_/datasets/lvis_v0.5_boxes_bags-paper.py',
    '../_base_/schedules/bags_paper.py',
    '../_base_/longtail_default_runtime.py',
]
load_from = 'https://download.openmmlab.com/mmdetection/v2.0/faster_rcnn/faster_rcnn_r50_fpn_2x_coco/faster_rcnn_r50_fpn_2x_coco_bbox_mAP-0.384_20200504_210434-a5d8aa15.pth'

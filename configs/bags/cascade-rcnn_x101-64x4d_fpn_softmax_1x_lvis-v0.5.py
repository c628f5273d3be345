# BAGS, Li et al., CVPR 2020, https://arxiv.org/abs/2006.10408
# The detector that BAGS starts from.
# The paper's Table 2, in percent:
# | box AP | APr  | APc   | APf   | AP1  | AP2   | AP3   | AP4   |
# |--------|------|-------|-------|------|-------|-------|-------|
# | 27.16  | 4.84 | 27.22 | 36.00 | 0.00 | 24.06 | 31.09 | 36.17 |
# From mmdet's Cascade R-CNN X101-64x4d on COCO, 20 epochs; class-wise
# layers are re-initialised.
# Run: tools/train.py configs/bags/cascade-rcnn_x101-64x4d_fpn_softmax_1x_lvis-v0.5.py
_base_ = [
    '../_base_/models/cascade-rcnn_x101-64x4d_fpn_bags-paper.py',
    '../_base_/datasets/lvis_v0.5_boxes_bags-paper.py',
    '../_base_/schedules/bags_paper.py',
    '../_base_/longtail_default_runtime.py',
]
load_from = 'https://download.openmmlab.com/mmdetection/v2.0/cascade_rcnn/cascade_rcnn_x101_64x4d_fpn_20e_coco/cascade_rcnn_x101_64x4d_fpn_20e_coco_20200509_224357-051557b1.pth'

# BAGS, Li et al., CVPR 2020, https://arxiv.org/abs/2006.10408
# The detector that BAGS starts from.
# The paper's Table 2, in percent:
# | box AP | APr  | APc   | APf   | AP1  | AP2   | AP3   | AP4   |
# |--------|------|-------|-------|------|-------|-------|-------|
# | 24.63  | 5.80 | 24.54 | 32.25 | 0.79 | 22.37 | 27.45 | 32.73 |
# From mmdet's Faster R-CNN X101-64x4d on COCO, 1x; class-wise layers
# are re-initialised.
# Run: tools/train.py configs/bags/faster-rcnn_x101-64x4d_fpn_softmax_1x_lvis-v0.5.py
_base_ = 'faster-rcnn_r50_fpn_softmax_1x_lvis-v0.5.py'
load_from = 'https://download.openmmlab.com/mmdetection/v2.0/faster_rcnn/faster_rcnn_x101_64x4d_fpn_1x_coco/faster_rcnn_x101_64x4d_fpn_1x_coco_20200204-833ee192.pth'
init_cfg = dict(checkpoint='open-mmlab://resnext101_64x4d')
backbone = dict(type='ResNeXt', depth=101, groups=64, base_width=4, init_cfg=init_cfg)
model = dict(backbone=backbone)

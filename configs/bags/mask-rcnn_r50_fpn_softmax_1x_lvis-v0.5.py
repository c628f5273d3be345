# BAGS, Li et al., CVPR 2020, https://arxiv.org/abs/2006.10408
# The detector that BAGS starts from.
# The paper's Table 3, in percent:
# |      | AP    | APr  | APc   | APf   | AP1  | AP2   | AP3   | AP4   |
# |------|-------|------|-------|-------|------|-------|-------|-------|
# | mask | 20.68 | 3.73 | 19.95 | 28.37 | 0.00 | 17.06 | 23.66 | 29.62 |
# | box  | 20.78 | 3.28 | 18.99 | 30.00 | 0.00 | 15.88 | 24.61 | 30.51 |
# From mmdet's Mask R-CNN on COCO, 2x; class-wise layers are re-initialised. 8 x 1
# images, score_thr and detections as released.
# Run: tools/train.py configs/bags/mask-rcnn_r50_fpn_softmax_1x_lvis-v0.5.py
_base_ = [
    '../_base_/models/mask-rcnn_r50_fpn_bags-paper.py',
    '../_base_/datasets/lvis_v0.5_masks_bags-paper.py',
    '../_base_/schedules/bags_paper.py',
    '../_base_/longtail_default_runtime.py',
]
load_from = 'https://download.openmmlab.com/mmdetection/v2.0/mask_rcnn/mask_rcnn_r50_fpn_2x_coco/mask_rcnn_r50_fpn_2x_coco_bbox_mAP-0.392__segm_mAP-0.354_20200505_003907-3e542a40.pth'
train_dataloader = dict(batch_size=1)
auto_scale_lr = dict(base_batch_size=8)

# BAGS, Li et al., CVPR 2020, https://arxiv.org/abs/2006.10408
# No published result.
# Trains fc_cls for 12 epochs on the finished softmax detector beside it.
# Run: tools/train.py configs/bags/mask-rcnn_r101_fpn_bags-classifier_ms-2x_lvis-v1.py
_base_ = 'mask-rcnn_r101_fpn_bags-classifier_ms-1x_lvis-v1.py'
base_config = 'mask-rcnn_r101_fpn_softmax_ms-2x_lvis-v1.py'
load_from = 'work_dirs/mask-rcnn_r101_fpn_softmax_ms-2x_lvis-v1/epoch_24.pth'

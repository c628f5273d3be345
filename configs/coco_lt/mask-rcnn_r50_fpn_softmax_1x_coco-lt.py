# BAGS, Li et al., CVPR 2020, https://arxiv.org/abs/2006.10408
# The detector that BAGS starts from.
# The paper's Table 6, in percent:
# |      | AP   | AP1 | AP2  | AP3  | AP4  |
# |------|------|-----|------|------|------|
# | mask | 18.0 | 0.0 | 11.5 | 21.8 | 23.3 |
# | box  | 19.1 | 0.0 | 11.1 | 22.9 | 26.4 |
# Nobody published a config: the schedule is that of BAGS on LVIS, from
# ImageNet; score_thr and max_per_img are those of SimCal, who made COCO-LT.
# Run: tools/train.py configs/coco_lt/mask-rcnn_r50_fpn_softmax_1x_coco-lt.py
_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    '../_base_/datasets/coco_lt_masks.py',
    '../_base_/schedules/bags_paper.py',
    '../_base_/longtail_default_runtime.py',
]
model = dict(
    roi_head=dict(bbox_head=dict(type='LongTailShared2FCBBoxHead')),
    test_cfg=dict(rcnn=dict(score_thr=0.05, max_per_img=100)),
)

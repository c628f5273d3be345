# EQL, Tan et al., CVPR 2020, https://arxiv.org/abs/2003.05176
# Plain sigmoid cross-entropy, the row that EQL is compared with.
# The paper's Table 1, in percent:
# | mask AP | APr | APc  | APf  | box AP |
# |---------|-----|------|------|--------|
# | 20.1    | 7.2 | 19.9 | 25.4 | 20.5   |
# Run: tools/train.py configs/eql/mask-rcnn_r50_fpn_sigmoid_25e_lvis-v0.5.py
_base_ = [
    '../_base_/models/mask-rcnn_r50_fpn_eql-paper.py',
    '../_base_/datasets/lvis_v0.5_800.py',
    '../_base_/schedules/eql_paper.py',
    '../_base_/longtail_default_runtime.py',
]
loss_cls = dict(_delete_=True, type='EqualizationLoss', num_classes=1230, frequency_threshold=0.0)
model = dict(roi_head=dict(bbox_head=dict(loss_cls=loss_cls)))

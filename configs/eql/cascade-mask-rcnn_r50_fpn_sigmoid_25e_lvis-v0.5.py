# EQL, Tan et al., CVPR 2020, https://arxiv.org/abs/2003.05176
# Plain sigmoid cross-entropy, the row that EQL is compared with.
# The paper's Table 1, in percent:
# | mask AP | APr | APc  | APf  | box AP |
# |---------|-----|------|------|--------|
# | 21.1    | 6.3 | 21.6 | 26.5 | 21.1   |
# Run: tools/train.py configs/eql/cascade-mask-rcnn_r50_fpn_sigmoid_25e_lvis-v0.5.py
_base_ = [
    '../_base_/models/cascade-mask-rcnn_r50_fpn_eql-paper.py',
    '../_base_/datasets/lvis_v0.5_800.py',
    '../_base_/schedules/eql_paper.py',
    '../_base_/longtail_default_runtime.py',
]
loss_cls = dict(type='EqualizationLoss', num_classes=1230, frequency_threshold=0.0)
bbox_head = [dict(head, loss_cls=loss_cls) for head in _base_.model.roi_head.bbox_head]
model = dict(roi_head=dict(bbox_head=bbox_head))

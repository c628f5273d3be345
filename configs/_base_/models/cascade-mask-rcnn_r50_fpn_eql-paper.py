# mmdet's box losses and proposals are the paper's already.
_base_ = 'mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py'
bbox_head = [dict(head, type='LongTailShared2FCBBoxHead', num_classes=1230) for head in _base_.model.roi_head.bbox_head]
model = dict(
    roi_head=dict(bbox_head=bbox_head, mask_head=dict(num_classes=1230, class_agnostic=True)),
    test_cfg=dict(rcnn=dict(score_thr=0.0, max_per_img=300)),
)

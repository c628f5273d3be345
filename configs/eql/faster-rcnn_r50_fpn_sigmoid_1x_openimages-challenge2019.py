# EQL, Tan et al., CVPR 2020, https://arxiv.org/abs/2003.05176
# The paper's Table 6, in percent:
# | AP    | AP1   | AP2   | AP3   | AP4   | AP5   |
# |-------|-------|-------|-------|-------|-------|
# | 48.13 | 59.86 | 51.24 | 49.31 | 46.51 | 33.72 |
# The paper gives no schedule; this one is mmdet's for the challenge.
# Run: tools/train.py configs/eql/faster-rcnn_r50_fpn_sigmoid_1x_openimages-challenge2019.py
_base_ = 'mmdet::openimages/faster-rcnn_r50_fpn_32xb2-1x_openimages-challenge.py'
custom_imports = dict(imports=['mmdet_longtail'], allow_failed_imports=False)
default_hooks = dict(class_statistics=dict(type='ClassStatisticsHook'))
loss_cls = dict(_delete_=True, type='EqualizationLoss', num_classes=500, frequency_threshold=0.0)
bbox_head = dict(type='LongTailShared2FCBBoxHead', loss_cls=loss_cls)
model = dict(roi_head=dict(bbox_head=bbox_head), test_cfg=dict(rcnn=dict(score_thr=1e-4, max_per_img=300)))
val_evaluator = dict(type='OpenImagesGroupMetric')
test_evaluator = val_evaluator

# mmdet's recipe on LVIS v1 without RFS, with NMS for large vocabularies.
_base_ = 'mmdet::lvis/mask-rcnn_r50_fpn_sample1e-3_ms-1x_lvis-v1.py'
custom_imports = dict(imports=['mmdet_longtail'], allow_failed_imports=False)
default_hooks = dict(class_statistics=dict(type='ClassStatisticsHook'))
train_dataloader = dict(dataset=dict(oversample_thr=0.0))  # no RFS
val_evaluator = dict(type='FrequencyGroupMetric', bin_edges=(10, 100, 1000))
test_evaluator = val_evaluator
model = dict(roi_head=dict(bbox_head=dict(type='LongTailShared2FCBBoxHead')))

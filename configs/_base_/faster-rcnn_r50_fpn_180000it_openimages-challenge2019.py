# The recipe of https://github.com/tztztztztz/eqlv2 for Open Images: 8 GPUs x 2
# images, 180,000 iterations.
_base_ = 'mmdet::openimages/faster-rcnn_r50_fpn_32xb2-1x_openimages-challenge.py'
custom_imports = dict(imports=['mmdet_longtail'], allow_failed_imports=False)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=10000), class_statistics=dict(type='ClassStatisticsHook'))
log_processor = dict(by_epoch=False)
resize = dict(type='Resize', scale=(1333, 800), keep_ratio=True)
train_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='LoadAnnotations', with_bbox=True),
    resize,
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'instances', 'image_level_labels')
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    resize,
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=keys),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=180000, val_interval=180000)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, end=500),
    dict(type='MultiStepLR', by_epoch=False, milestones=[120000, 160000], gamma=0.1, end=180000),
]
optim_wrapper = dict(optimizer=dict(lr=0.02), clip_grad=None)
auto_scale_lr = dict(base_batch_size=16)
model = dict(
    roi_head=dict(bbox_head=dict(type='LongTailShared2FCBBoxHead')),
    test_cfg=dict(rcnn=dict(score_thr=1e-4, max_per_img=300)),
)
val_evaluator = dict(_delete_=True, type='OpenImagesGroupMetric')
test_evaluator = val_evaluator

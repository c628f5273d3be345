# HTC on LVIS v0.5 as in BAGS's released configs, with the semantic branch: its
# images are COCO's, so COCO's stuff maps fit. mmdet has no base of the model
# without the data, which is replaced here.
_base_ = 'mmdet::htc/htc_x101-64x4d_fpn_16xb1-20e_coco.py'
custom_imports = dict(imports=['mmdet_longtail'], allow_failed_imports=False)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2), class_statistics=dict(type='ClassStatisticsHook'))
dataset_type = 'LVISV05Dataset'
data_root = 'data/lvis_v0.5/'
train_dataloader = dict(
    dataset=dict(type=dataset_type, data_root=data_root, ann_file='annotations/lvis_v0.5_train.json')
)
val_dataloader = dict(dataset=dict(type=dataset_type, data_root=data_root, ann_file='annotations/lvis_v0.5_val.json'))
test_dataloader = val_dataloader
val_evaluator = dict(
    _delete_=True,
    type='FrequencyGroupMetric',
    ann_file=data_root + 'annotations/lvis_v0.5_val.json',
    metric=['bbox', 'segm'],
    bin_edges=(10, 100, 1000),
)
test_evaluator = val_evaluator
bbox_head = [dict(head, type='LongTailShared2FCBBoxHead', num_classes=1230) for head in _base_.model.roi_head.bbox_head]
mask_head = [dict(head, num_classes=1230) for head in _base_.model.roi_head.mask_head]
model = dict(roi_head=dict(bbox_head=bbox_head, mask_head=mask_head))
train_cfg = dict(val_interval=4)
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 3, by_epoch=False, end=500),
    dict(type='MultiStepLR', milestones=[16, 19], gamma=0.1, end=20),
]
optim_wrapper = dict(optimizer=dict(lr=0.01), clip_grad=dict(max_norm=35, norm_type=2))
auto_scale_lr = dict(base_batch_size=16)

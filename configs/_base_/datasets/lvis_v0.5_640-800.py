# mmdet's LVIS v0.5 without the wrapper that repeats images.
_base_ = 'mmdet::_base_/datasets/lvis_v0.5_instance.py'
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='LVISV05Dataset',
        data_root=_base_.data_root,
        ann_file='annotations/lvis_v0.5_train.json',
        data_prefix=dict(img='train2017/'),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=_base_.train_pipeline,
    )
)
val_evaluator = dict(
    _delete_=True, type='FrequencyGroupMetric', ann_file=_base_.val_evaluator.ann_file, metric=['bbox', 'segm']
)
test_evaluator = val_evaluator

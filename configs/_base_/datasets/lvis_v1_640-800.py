# mmdet's LVIS v1 without the wrapper that repeats images, and with AP by
# frequency group and by bins of training boxes.
_base_ = 'mmdet::_base_/datasets/lvis_v1_instance.py'
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='LVISV1Dataset',
        data_root=_base_.data_root,
        ann_file='annotations/lvis_v1_train.json',
        data_prefix=dict(img=''),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=_base_.train_pipeline,
    )
)
val_evaluator = dict(
    _delete_=True,
    type='FrequencyGroupMetric',
    ann_file=_base_.val_evaluator.ann_file,
    metric=['bbox', 'segm'],
    bin_edges=(10, 100, 1000),
)
test_evaluator = val_evaluator

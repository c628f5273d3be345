# COCO-LT, which tools/dataset_converters/make_coco_lt.py writes; AP by its bins on val2017.
_base_ = 'mmdet::_base_/datasets/coco_detection.py'
train_dataloader = dict(dataset=dict(ann_file='annotations/coco_lt_train.json'))
val_evaluator = dict(
    _delete_=True, type='FrequencyGroupMetric', ann_file=_base_.val_evaluator.ann_file, bin_edges=(20, 400, 8000)
)
test_evaluator = val_evaluator

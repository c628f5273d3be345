# 16 GPUs with 64 images each.
data_preprocessor = dict(num_classes=1000, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=224),
    # The strengths are those of ImageNet-LT's authors.
    dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=256, edge='short'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=64,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='ImageNetLT', data_root='data/imagenet', ann_file='ImageNet_LT_train.txt', pipeline=train_pipeline
    ),
)
val_dataloader = dict(
    batch_size=64,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='ImageNetLT',
        data_root='data/imagenet',
        ann_file='ImageNet_LT_test.txt',
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
val_evaluator = [dict(type='Accuracy', topk=(1, 5)), dict(type='ShotAccuracy')]
test_dataloader = val_dataloader
test_evaluator = val_evaluator

# Two GPUs with 128 images each. The mean image is that of CIFAR-100.
data_preprocessor = dict(
    num_classes=100, mean=[129.304, 124.070, 112.434], std=[68.170, 65.392, 70.418], to_rgb=False
)  # CIFAR's images are RGB
train_pipeline = [
    dict(type='RandomCrop', crop_size=32, padding=4),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='CIFARAutoAugment'),
    # The side of 16 is that of AutoAugment's authors on CIFAR.
    dict(type='Cutout', shape=16, pad_val=[129, 124, 112], prob=1.0),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=128,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(type='CIFAR100LT', imbalance=200, data_root='data/cifar100', split='train', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CIFAR100LT', data_root='data/cifar100', split='test', test_mode=True, pipeline=[dict(type='PackInputs')]
    ),
)
val_evaluator = [dict(type='Accuracy', topk=(1, 5)), dict(type='ShotAccuracy')]
test_dataloader = val_dataloader
test_evaluator = val_evaluator

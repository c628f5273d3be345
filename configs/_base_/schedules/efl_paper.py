# Li et al., Equalized Focal Loss, CVPR 2022, as in its code: 16 GPUs x 1 image,
# 24 epochs, one of them warm-up, gradients clipped at 35.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=24, val_interval=24)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=True, end=1, convert_to_iter_based=True),
    dict(type='MultiStepLR', milestones=[16, 22], gamma=0.1, end=24),
]
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=0.0001),
    clip_grad=dict(max_norm=35),
)
auto_scale_lr = dict(enable=False, base_batch_size=16)

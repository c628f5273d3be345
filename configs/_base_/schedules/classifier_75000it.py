# cRT and LWS of EQL's authors (eqlv2): 8 GPUs x 2 images, 75,000 iterations.
train_cfg = dict(type='IterBasedTrainLoop', max_iters=75000, val_interval=25000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, end=500),
    dict(type='MultiStepLR', by_epoch=False, milestones=[50000, 70000], gamma=0.1, end=75000),
]
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=0.0001))
auto_scale_lr = dict(enable=False, base_batch_size=16)

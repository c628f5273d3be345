train_cfg = dict(by_epoch=False, max_iters=12800, val_interval=1600)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.2, momentum=0.9, weight_decay=1e-4, nesterov=True))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.5, by_epoch=False, begin=0, end=400),
    dict(type='MultiStepLR', by_epoch=False, milestones=[6400, 9600], gamma=0.1),
]
auto_scale_lr = dict(base_batch_size=256)

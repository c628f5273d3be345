train_cfg = dict(by_epoch=False, max_iters=12000, val_interval=1000)
val_cfg = dict()
test_cfg = dict()
# The paper states no momentum and weight decay for ImageNet-LT; these are the
# usual ones.
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.4, momentum=0.9, weight_decay=1e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.25, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', by_epoch=False, milestones=[3400, 6800, 10200], gamma=0.1),
]
auto_scale_lr = dict(base_batch_size=1024)

"""Classifier stages of the tiny detector, with and without cached RoIs."""

import copy

from hook_runs import config_of, weights_at_start, weights_of
from mmengine.registry import RUNNERS

ONLY = dict(type='TrainOnlyHook', trainable=['roi_head.bbox_head.fc_cls'])
ALL_ROIS = {'model.train_cfg.rcnn.sampler.num': 10**6}
CASCADE = {
    'model.type': 'CascadeRCNN',
    'model.roi_head.type': 'CascadeRoIHead',
    'model.roi_head.num_stages': 2,
    'model.roi_head.stage_loss_weights': [1, 0.5],
    'model.roi_head.bbox_head.reg_class_agnostic': True,
}
CASCADE_ONLY = dict(ONLY, trainable=['roi_head.bbox_head.*.fc_cls'])


def stage_runner(data, folder, name, loss_cls=None, cache=None, **overrides):
    """Build a stage of 3 epochs on ``folder/base/epoch_1.pth``.

    ``cache`` are arguments of the FeatureCacheHook; None is without it.
    """
    overrides = {
        'default_hooks.train_only': ONLY,
        'load_from': str(folder / 'base' / 'epoch_1.pth'),
        'optim_wrapper.optimizer.lr': 0.1,
        **copy.deepcopy(overrides),  # merging changes them
    }
    if 'train_cfg' not in overrides:
        length = {'train_cfg.max_epochs': 3, 'train_cfg.val_interval': 3}
        overrides = length | overrides
    if cache is not None:
        hook = dict(type='FeatureCacheHook', **cache)
        overrides['default_hooks.feature_cache'] = hook
    return RUNNERS.build(config_of(data, folder / name, loss_cls, **overrides))


def train_stage(*args, **kwargs):
    """Train a stage, and return its weights, which have moved."""
    runner = stage_runner(*args, **kwargs)
    start = weights_at_start(runner)
    end = weights_of(runner)
    assert largest_difference(start, end) > 1e-2
    return end


def largest_difference(one, other):
    assert one.keys() == other.keys()
    return max((one[k] - other[k]).abs().max().item() for k in one)

"""Trainings of a second that hooks take part in."""

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from tiny import write_config

from mmdet_longtail.models.utils.bbox_heads import unwrapped

CLASSES = 4
EQL = dict(
    _delete_=True,
    type='EqualizationLoss',
    num_classes=CLASSES,
    frequency_threshold=0.6,
)
BAGS = dict(
    _delete_=True,
    type='BalancedGroupSoftmaxLoss',
    num_classes=CLASSES,
    bin_edges=(2, 4),
)
LOSSES = dict(softmax=None, EQL=EQL, BAGS=BAGS)
WEIGHT = 'roi_head.bbox_head.fc_cls.weight'
CLASSIFIER = {WEIGHT, 'roi_head.bbox_head.fc_cls.bias'}


def config_of(data, work_dir, loss_cls=EQL, **overrides):
    work_dir.mkdir(parents=True, exist_ok=True)
    config = Config.fromfile(write_config(work_dir / 'config.py', data))
    hook = overrides.pop('hook', dict(type='ClassStatisticsHook'))
    if hook is not None:
        overrides['default_hooks.class_statistics'] = hook
    if loss_cls is not None:
        overrides['model.roi_head.bbox_head.loss_cls'] = loss_cls
    config.merge_from_dict(overrides)
    config.work_dir = str(work_dir)
    config.experiment_name = f'{work_dir.parent.name}_{work_dir.name}'
    return config


def runner_of(*args, **kwargs):
    return Runner.from_cfg(config_of(*args, **kwargs))


def weights_of(runner):
    return {
        name: tensor.clone()
        for name, tensor in unwrapped(runner.model).state_dict().items()
        if 'loss_cls' not in name
    }


def saved_weights(checkpoint):
    return torch.load(checkpoint, weights_only=True)['state_dict']


class Snapshot(Hook):
    """Copies the weights before the first step."""

    weights = None

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if self.weights is None:
            self.weights = weights_of(runner)


def weights_at_start(runner):
    """Train, and give the weights before the first step."""
    snapshot = Snapshot()
    runner.register_hook(snapshot)
    runner.train()
    return snapshot.weights


def changed_names(before, after):
    return {
        name for name in before if not torch.equal(before[name], after[name])
    }

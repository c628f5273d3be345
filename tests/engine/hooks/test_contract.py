"""The contract of every hook that this package registers.

A hook without defaults for its arguments needs an entry in ARGUMENTS.
"""

import pytest
import torch
from mmdet.registry import HOOKS
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from ranks import run_on_two_ranks
from survival import assert_same_end, is_same, last, train, write_run
from tiny import make_data, write_config

from mmdet_longtail.errors import LongTailError

REGISTERED = sorted(
    name
    for name, hook in HOOKS.module_dict.items()
    if hook.__module__.startswith('mmdet_longtail.')
)
ARGUMENTS = {
    'ClassifierMonitorHook': dict(interval=1),
    'TrainOnlyHook': dict(trainable=['roi_head.bbox_head']),
    'WholeCheckpointHook': dict(interval=4, by_epoch=False),
}
# Where a resumable training has a hook of this type already.
SLOTS = {
    'ClassStatisticsHook': 'class_statistics',
    'FiniteLossHook': 'finite_loss',
    'PreemptionHook': 'preemption',
    'WholeCheckpointHook': 'checkpoint',
}
# What else a training with the hook has.
BESIDE = {
    'FeatureCacheHook': {
        'default_hooks.train_only': dict(
            type='TrainOnlyHook', trainable=['roi_head.bbox_head.fc_cls']
        )
    }
}
# Words of the error in a config that lacks what the hook needs.
NEEDS = {
    'ClassifierMonitorHook': 'no class statistics',
    'FeatureCacheHook': 'nothing freezes',
    'PreemptionHook': 'is not a WholeCheckpointHook',
    'RestartClassifierHook': 'no RoI head',
    'TrainOnlyHook': 'matches no parameter',
}
NO_WORKERS = dict(num_workers=0, persistent_workers=False)
SHORT = {
    'train_dataloader.dataset.indices': 6,
    'train_cfg.max_epochs': 2,
    'train_cfg.val_interval': 2,
    'train_dataloader.num_workers': 0,
    'train_dataloader.persistent_workers': False,
    'val_dataloader': NO_WORKERS,
}


@HOOKS.register_module()
class KilledHook(Hook):
    """End the run within the second epoch."""

    def before_train_iter(self, runner, *args, **kwargs):
        if runner.iter == 5:
            raise KeyboardInterrupt


def config_of(name):
    return dict(type=name, **ARGUMENTS.get(name, {}))


def overrides_of(name):
    return {f'default_hooks.{SLOTS.get(name, "tested")}': config_of(name)}


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    """A resumable training of 2 x 3 iterations with EMA and statistics."""
    return write_run(tmp_path_factory.mktemp('run'), **SHORT)


@pytest.mark.parametrize('name', REGISTERED)
def test_built_from_a_written_config(name):
    text = Config(dict(hook=config_of(name))).pretty_text
    hook = HOOKS.build(Config.fromstring(text, '.py').hook)
    assert type(hook).__name__ == name


@pytest.mark.parametrize('name', REGISTERED)
def test_a_resumed_training_equals_an_uninterrupted_one(
    config, tmp_path, name
):
    hook = overrides_of(name) | BESIDE.get(name, {})
    train(config, tmp_path / 'whole', **hook)
    with pytest.raises(KeyboardInterrupt):
        train(
            config,
            tmp_path / 'killed',
            **hook,
            custom_hooks=[dict(type='EMAHook'), dict(type='KilledHook')],
        )
    assert last(tmp_path / 'killed')['meta']['iter'] == 4
    train(config, tmp_path / 'killed', **hook)
    assert_same_end(tmp_path / 'whole', tmp_path / 'killed')
    # The average was updated, and the test did not leave it in the model.
    end = last(tmp_path / 'whole')
    assert not is_same(end['state_dict'], end['ema_state_dict'])


def train_on_rank(rank, config, folder):
    wrapper = dict(
        type='MMDistributedDataParallel',
        device_ids=None,
        broadcast_buffers=False,
        find_unused_parameters=True,
    )
    for name in REGISTERED:
        runner = train(
            config,
            f'{folder}/{name}',
            **overrides_of(name),
            **BESIDE.get(name, {}),
            **{'train_cfg.max_epochs': 1},
            launcher='pytorch',
            model_wrapper_cfg=wrapper,
        )
        weights = runner.model.module.state_dict()
        torch.save(weights, f'{folder}/{name}_{rank}.pth')


@pytest.fixture(scope='module')
def of_two_ranks(config, tmp_path_factory):
    """The weights of both ranks after an epoch with each hook."""
    folder = tmp_path_factory.mktemp('ranks')
    run_on_two_ranks(train_on_rank, str(config), str(folder))
    return folder


@pytest.mark.parametrize('name', REGISTERED)
def test_two_ranks_end_with_the_same_weights(of_two_ranks, name):
    one, other = (
        torch.load(of_two_ranks / f'{name}_{rank}.pth', weights_only=True)
        for rank in (0, 1)
    )
    assert is_same(one, other)


@pytest.fixture(scope='module')
def bare(tmp_path_factory):
    """A config without RoI head, statistics, evaluation and our runner."""
    folder = tmp_path_factory.mktemp('bare')
    data = make_data(folder / 'data')
    config = Config.fromfile(write_config(folder / 'bare.py', data))
    model = config.model
    model.type = 'RPN'
    del model.roi_head, model.train_cfg.rcnn, model.train_cfg.rpn_proposal
    model.test_cfg = dict(rpn=model.test_cfg.rpn)
    config.val_dataloader = config.val_evaluator = config.val_cfg = None
    config.load_from = str(folder / 'start.pth')
    torch.save(dict(state_dict=dict(x=torch.zeros(1))), config.load_from)
    return config


@pytest.mark.parametrize('name', REGISTERED)
def test_what_a_config_lacks_is_one_line(bare, tmp_path, name):
    bare = Config(dict(bare.to_dict()))
    bare.work_dir = str(tmp_path)
    bare.merge_from_dict(overrides_of(name))
    runner = Runner.from_cfg(bare)
    try:
        runner.train()
    except LongTailError as error:
        assert '\n' not in str(error)
        assert NEEDS.get(name, '') in str(error)
    else:
        assert name not in NEEDS

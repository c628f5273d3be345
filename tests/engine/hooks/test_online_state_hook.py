"""Online state on several ranks, and through a real Runner."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import HOOKS, MODELS
from mmengine.config import Config
from mmengine.hooks import Hook
from ranks import run_on_two_ranks
from survival import NO_WORKERS, assert_same_end, last, train, write_run
from torch import nn

from mmdet_longtail.apis.check import check_run_config
from mmdet_longtail.engine.hooks import OnlineStateHook
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.losses import LongTailLoss
from mmdet_longtail.models.losses.online_state import OnlineState

C = 4
STEPS = 3


class OnlineLoss(OnlineState, LongTailLoss):
    """Softmax cross-entropy with a weight per label that training updates."""

    needs_class_statistics = False

    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.add_online_state(2, num_classes + 1, state=0.5)

    def row_losses(self, logits, labels):
        y = F.one_hot(labels, self.num_classes + 1)
        self.observe(y.sum(0), (y * logits.detach().sigmoid()).sum(0))
        w = 1 / (1 + self.state.to(logits)[labels])
        return w * F.cross_entropy(logits, labels, reduction='none')


@MODELS.register_module()
class SumOnlineLoss(OnlineLoss):
    def advance(self, state, number, total):
        return dict(state=state['state'] + number + total)


@MODELS.register_module()
class MeanOnlineLoss(OnlineLoss):
    def advance(self, state, number, total):
        mean = 0.9 * state['state'] + 0.1 * total / number.clamp(min=1)
        return dict(state=torch.where(number > 0, mean, state['state']))


@MODELS.register_module()
class LateOnlineLoss(SumOnlineLoss):
    updates_between_iterations = True


def rows_of(rank, step):
    """Scores and labels; rank 1 has no RoIs in the second iteration."""
    generator = torch.Generator().manual_seed(10 * step + rank)
    number = 0 if (rank, step) == (1, 1) else 12
    scores = torch.randn(number, C + 1, generator=generator).double()
    return scores, torch.randint(0, C + 1, (number,), generator=generator)


def model_of_losses():
    losses = (SumOnlineLoss, MeanOnlineLoss, LateOnlineLoss)
    return nn.ModuleList([loss(C) for loss in losses])


def keep_states(rank, folder):
    model = model_of_losses()
    hook, runner = OnlineStateHook(), SimpleNamespace(model=model)
    hook.before_train(runner)
    states = []
    for step in range(STEPS):
        hook.before_train_iter(runner, 0)
        scores, labels = rows_of(rank, step)
        for loss in model if len(labels) else ():
            loss(scores, labels)
        hook.after_train_iter(runner, 0)
        states.append([loss.state.clone() for loss in model])
    torch.save(states, f'{folder}/{rank}.pth')
    with pytest.raises(LongTailError, match='OnlineStateHook') as caught:
        SumOnlineLoss(C)(*rows_of(rank, 0))
    assert '\n' not in str(caught.value)


def test_two_ranks_equal_one_with_the_big_batch(tmp_path):
    run_on_two_ranks(keep_states, str(tmp_path))
    one, other = (
        torch.load(tmp_path / f'{rank}.pth', weights_only=True)
        for rank in (0, 1)
    )
    model = model_of_losses()
    for step in range(STEPS):
        scores, labels = zip(*(rows_of(rank, step) for rank in (0, 1)))
        for loss, first, second in zip(model, one[step], other[step]):
            loss(torch.cat(scores), torch.cat(labels))
            assert torch.equal(first, second)
            torch.testing.assert_close(first, loss.state, rtol=0, atol=1e-14)


@pytest.mark.parametrize('name', ['SumOnlineLoss', 'MeanOnlineLoss'])
def test_only_training_updates_and_nan_does_not(name):
    loss = MODELS.build(dict(type=name, num_classes=C))
    scores, labels = rows_of(0, 0)
    loss.eval()(scores, labels)
    assert (loss.state == 0.5).all()
    loss.train()(scores, labels)
    assert not (loss.state == 0.5).any()
    loss(scores * torch.nan, labels)
    assert loss.state.isfinite().all()
    assert loss.state_dict().keys() == {'state'}


def test_two_forwards_of_an_iteration_add_up():
    loss, (scores, labels) = SumOnlineLoss(C), rows_of(0, 0)
    loss(scores, labels)
    once = loss.state.clone()
    loss(scores, labels)
    torch.testing.assert_close(loss.state - once, once - 0.5)


def test_a_late_state_waits_for_the_end_of_the_iteration():
    """Its sums are those of all calls."""
    late, at_once = model = nn.ModuleList(
        [LateOnlineLoss(C), SumOnlineLoss(C)]
    )
    hook, runner = OnlineStateHook(), SimpleNamespace(model=model)
    hook.before_train(runner)
    for step in range(2):
        hook.before_train_iter(runner, 0)
        before = late.state.clone()
        for level in range(3):
            for loss in model:
                loss(*rows_of(level, step))
            assert torch.equal(late.state, before)
        hook.after_train_iter(runner, 0)
        torch.testing.assert_close(late.state, at_once.state)
        assert not torch.equal(late.state, before)


# -- in a Runner -------------------------------------------------------------


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    """A resumable training of 2 x 6 iterations with EMA."""
    loss = dict(_delete_=True, type='MeanOnlineLoss', num_classes=C)
    folder = tmp_path_factory.mktemp('run')
    return write_run(
        folder,
        **{
            'model.roi_head.bbox_head.loss_cls': loss,
            'train_cfg.max_epochs': 2,
            'train_cfg.val_interval': 2,
            'train_dataloader.num_workers': 0,
            'train_dataloader.persistent_workers': False,
            'val_dataloader': NO_WORKERS,
        },
    )


@HOOKS.register_module()
class EndAtSevenHook(Hook):
    def before_train_iter(self, runner, *args, **kwargs):
        if runner.iter == 7:
            raise KeyboardInterrupt


STATE = 'roi_head.bbox_head.loss_cls.state'


def test_a_resumed_training_has_the_same_state(config, tmp_path):
    train(config, tmp_path / 'whole')
    hooks = [dict(type='EMAHook'), dict(type='EndAtSevenHook')]
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / 'parts', custom_hooks=hooks)
    half = last(tmp_path / 'parts')['state_dict'][STATE]
    train(config, tmp_path / 'parts')
    assert_same_end(tmp_path / 'whole', tmp_path / 'parts')
    end = last(tmp_path / 'whole')
    assert not torch.equal(end['state_dict'][STATE], half)
    assert torch.equal(
        end['ema_state_dict'][f'module.{STATE}'], end['state_dict'][STATE]
    )


def train_on_rank(rank, config, folder):
    runner = train(
        config,
        f'{folder}/run',
        launcher='pytorch',
        model_wrapper_cfg=dict(
            type='MMDistributedDataParallel',
            device_ids=None,
            broadcast_buffers=False,
            find_unused_parameters=True,
        ),
    )
    weights = runner.model.module.state_dict()
    torch.save(weights[STATE], f'{folder}/{rank}.pth')


def test_two_ranks_of_a_run_have_the_same_state(config, tmp_path):
    run_on_two_ranks(train_on_rank, str(config), str(tmp_path))
    one, other = (
        torch.load(tmp_path / f'{rank}.pth', weights_only=True)
        for rank in (0, 1)
    )
    assert torch.equal(one, other)
    assert not (one == 0.5).any()


def test_check_names_the_hook_that_several_ranks_need(config):
    config = Config.fromfile(config)
    assert 'OnlineStateHook' not in str(check_run_config(config))
    del config.default_hooks.class_statistics
    assert 'OnlineStateHook' in str(check_run_config(config))

import signal
from types import SimpleNamespace

import mmengine
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from ranks import run_on_two_ranks
from survival import NO_WORKERS, SHORT, last, train, write_run
from tiny import make_data, write_config

from mmdet_longtail.engine.hooks import FiniteLossHook
from mmdet_longtail.errors import LongTailError

NAN = float('nan')


def test_a_bad_loss_stops_the_run(tmp_path):
    config = write_run(tmp_path, **SHORT)
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(LongTailError) as caught:
        train(
            config,
            tmp_path / 'run',
            **{
                'train_dataloader': NO_WORKERS,
                'param_scheduler': [],
                'optim_wrapper.optimizer.lr': 1e12,
                'default_hooks.checkpoint.interval': 1,
            },
        )
    assert signal.getsignal(signal.SIGTERM) == handler
    message = str(caught.value)
    assert message.startswith('iteration ')
    assert 'loss_' in message and 'on images ' in message
    assert '\n' not in message
    bad = int(message.split()[1].strip(':'))
    kept = last(tmp_path / 'run')
    assert kept['meta']['iter'] == bad - 1


class Runner:
    """A runner of which each step returns a loss."""

    hooks = ()
    optim_wrapper = None

    def __init__(self, hook):
        self.hook, self.iter = hook, 0

    def step(self, loss, **terms):
        batch = dict(data_samples=[dict(img_id=self.iter)])
        losses = dict(loss=torch.tensor(loss), **terms)
        self.hook.after_train_iter(self, 0, batch, losses)
        self.iter += 1


def test_a_bad_loss_names_its_terms_and_images():
    runner = Runner(FiniteLossHook())
    runner.iter = 41
    batch = dict(data_samples=[dict(img_id=7), dict(img_path='a.png')])
    losses = dict(
        loss=torch.tensor(NAN), loss_cls=torch.tensor(NAN), acc=float('nan')
    )
    losses['loss_bbox'] = torch.tensor(1.0)
    with pytest.raises(LongTailError) as caught:
        FiniteLossHook().after_train_iter(runner, 0, batch, losses)
    assert str(caught.value).startswith(
        'iteration 42: loss=nan, loss_cls=nan on images 7, a.png; '
    )
    runner.step(1.0, acc=NAN)


@pytest.mark.parametrize('bad', [NAN, float('inf')])
def test_no_loss_is_missed_between_two_checks(bad):
    runner = Runner(FiniteLossHook(interval=5))
    for loss in [1.0] * 6 + [bad, 1.0, 1.0]:
        runner.step(loss)
    with pytest.raises(LongTailError, match=r'iteration 7: .* on images 6;'):
        runner.step(1.0)


@pytest.mark.parametrize(
    'event',
    [
        lambda hook, runner: hook.after_train_epoch(runner),
        lambda hook, runner: hook.before_val_epoch(runner),
        lambda hook, runner: hook.before_save_checkpoint(runner, {}),
    ],
)
def test_a_loss_is_checked_before_it_is_used(event):
    runner = Runner(FiniteLossHook(interval=50))
    runner.step(1.0)
    event(runner.hook, runner)
    runner.step(NAN)
    with pytest.raises(LongTailError, match='iteration 2: '):
        event(runner.hook, runner)


def test_a_checkpoint_by_iterations_is_preceded_by_a_check():
    runner = Runner(FiniteLossHook(interval=50))
    runner.hooks = [CheckpointHook(interval=2, by_epoch=False)]
    runner.step(NAN)
    with pytest.raises(LongTailError, match='iteration 1: '):
        runner.step(1.0)


def test_steps_that_a_scaler_skips():
    runner = Runner(FiniteLossHook(interval=4))
    scaler = torch.amp.GradScaler('cpu')
    runner.optim_wrapper = SimpleNamespace(loss_scaler=scaler)
    for loss in [NAN] * 10 + [1.0] + [NAN] * 9:
        runner.step(loss)
    with pytest.raises(LongTailError, match='iteration 22: '):
        for loss in [NAN] * 4:
            runner.step(loss)


def stop_on_rank(rank, path):
    runner = Runner(FiniteLossHook(interval=2))
    runner.step(1.0)
    try:
        runner.step(NAN if rank == 1 else 1.0)
    except LongTailError as error:
        (path / f'{rank}.txt').write_text(str(error))


def test_ranks_stop_together(tmp_path):
    run_on_two_ranks(stop_on_rank, tmp_path)
    assert 'another rank' in (tmp_path / '0.txt').read_text()
    assert 'on images 1;' in (tmp_path / '1.txt').read_text()


def test_a_run_stops_by_default(tmp_path):
    config = Config.fromfile(
        write_config(tmp_path / 'a.py', make_data(tmp_path / 'data'))
    )
    config.default_hooks.class_statistics = dict(type='ClassStatisticsHook')
    config.optim_wrapper.optimizer.lr = 1e30
    config.work_dir = str(tmp_path / 'run')
    with pytest.raises(LongTailError, match=r'^iteration 2: loss'):
        mmengine.runner.Runner.from_cfg(config).train()
    assert not list(tmp_path.glob('run/*.pth'))


def test_bad_interval():
    with pytest.raises(LongTailError, match='interval is 0'):
        FiniteLossHook(interval=0)

import signal

import pytest
import torch
from survival import NO_WORKERS, SHORT, last, train, write_run

from mmdet_longtail.engine.hooks import FiniteLossHook
from mmdet_longtail.errors import LongTailError


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


def test_a_bad_loss_names_its_terms_and_images():
    class Runner:
        iter = 41

    batch = dict(data_samples=[dict(img_id=7), dict(img_path='a.png')])
    losses = dict(
        loss=torch.tensor(float('nan')),
        loss_cls=torch.tensor(float('nan')),
        loss_bbox=torch.tensor(1.0),
    )
    with pytest.raises(LongTailError) as caught:
        FiniteLossHook().after_train_iter(Runner(), 0, batch, losses)
    assert str(caught.value).startswith(
        'iteration 42: loss=nan, loss_cls=nan on images 7, a.png; '
    )
    FiniteLossHook().after_train_iter(
        Runner(), 0, batch, dict(loss=torch.tensor(1.0), acc=float('nan'))
    )

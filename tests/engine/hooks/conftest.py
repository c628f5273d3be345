"""Fixtures of the hooks' tests."""

import functools

import pytest
from hook_runs import LOSSES, runner_of
from tiny import make_data

from mmdet_longtail.models.losses.base import warn_once


@pytest.fixture(scope='package')
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp('data') / 'shapes')


@pytest.fixture(scope='package')
def trained(data, tmp_path_factory):
    """Give the checkpoint of softmax, EQL or BAGS, each trained once."""

    @functools.cache
    def train(name):
        folder = tmp_path_factory.mktemp(name)
        runner_of(data, folder, LOSSES[name]).train()
        return folder / 'epoch_1.pth'

    return train


@pytest.fixture
def messages(caplog):
    """Collect what the Runner's logger says."""
    warn_once.cache_clear()

    def start(runner):
        runner.logger.addHandler(caplog.handler)
        return runner

    start.text = lambda: caplog.text
    return start

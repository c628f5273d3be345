"""Fixtures of the tests that need mmpretrain."""

import pytest
from fake_cifar import write_cifar100

from mmdet_longtail.classification import CIFAR100LT


@pytest.fixture(scope='session')
def cifar100(tmp_path_factory):
    """A folder that looks like CIFAR-100."""
    folder = tmp_path_factory.mktemp('cifar100')
    write_cifar100(folder)
    return folder


@pytest.fixture
def without_checksums(monkeypatch):
    """Let CIFAR100LT read other images than CIFAR's."""
    monkeypatch.setattr(CIFAR100LT, 'train_list', [['train', None]])
    monkeypatch.setattr(CIFAR100LT, 'test_list', [['test', None]])

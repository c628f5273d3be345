"""Tests on a GPU, or by LONGTAIL_TEST_DEVICE=cpu what of them a CPU can do."""

import os
from pathlib import Path

import pytest
import torch

DEVICE = os.environ.get('LONGTAIL_TEST_DEVICE', 'cuda')


def pytest_collection_modifyitems(items):
    is_absent = DEVICE == 'cuda' and not torch.cuda.is_available()
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker('gpu')
            if is_absent:
                item.add_marker(pytest.mark.skip('there is no CUDA GPU'))


@pytest.fixture(scope='session')
def device():
    return DEVICE


@pytest.fixture(scope='session')
def cuda(device):
    """Skip a test of what only CUDA has."""
    if device != 'cuda':
        pytest.skip('only CUDA has this')
    return device

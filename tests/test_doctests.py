"""The examples of the docstrings run; losses and metrics have one each."""

import doctest
import importlib
import inspect
from pathlib import Path

import pytest
from mmengine.logging import MMLogger

from mmdet_longtail.evaluation import metrics
from mmdet_longtail.models import losses

ROOT = Path(__file__).parents[1]
MODULES = [
    '.'.join(path.relative_to(ROOT).with_suffix('').parts)
    for path in sorted((ROOT / 'mmdet_longtail').rglob('*.py'))
    if '>>> ' in path.read_text()
]


@pytest.mark.parametrize('name', MODULES)
def test_examples(name, capsys):
    MMLogger._instance_dict.clear()
    # Its first logger would print into an example.
    MMLogger.get_current_instance()
    failed, attempted = doctest.testmod(importlib.import_module(name))
    MMLogger._instance_dict.clear()
    assert attempted
    assert not failed, capsys.readouterr().out


@pytest.mark.parametrize(
    'item',
    [
        pytest.param(item, id=name)
        for module in (losses, metrics)
        for name, item in vars(module).items()
        if (inspect.isclass(item) or inspect.isfunction(item))
        and item.__module__.startswith('mmdet_longtail.')
        and item.__name__ != 'DetectionFileMetric'  # a base
    ],
)
def test_losses_and_metrics_have_examples(item):
    assert '>>> ' in item.__doc__

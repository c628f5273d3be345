"""The examples of the docstrings run, and every public loss has one."""

import doctest
import importlib
import inspect
from pathlib import Path

import pytest
from mmengine.logging import MMLogger

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
    'name',
    [
        name
        for name, value in vars(losses).items()
        if inspect.isclass(value) or inspect.isfunction(value)
    ],
)
def test_public_losses_have_examples(name):
    assert '>>> ' in vars(losses)[name].__doc__

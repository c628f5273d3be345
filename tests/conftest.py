"""Fixtures of more than one test file."""

import functools
from importlib.util import find_spec

import mmengine.config.utils
from tool_runs import call_tool

__all__ = ['call_tool']

# `make test-classification` has an environment for these.
collect_ignore = [] if find_spec('mmpretrain') else ['classification']

# For every mmdet:: base mmengine reads a hundred YAML files again.
mmengine.config.utils.load = functools.cache(mmengine.config.utils.load)

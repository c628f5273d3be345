"""Fixtures of more than one test file."""

from importlib.util import find_spec

from tool_runs import call_tool

__all__ = ['call_tool']

# `make test-classification` has an environment for these.
collect_ignore = [] if find_spec('mmpretrain') else ['classification']

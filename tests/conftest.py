"""Fixtures of more than one test file."""

from tool_runs import call_tool

__all__ = ['call_tool']

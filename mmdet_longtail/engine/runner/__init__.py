"""A runner that resumes exactly, and the launching of ranks."""

from mmdet_longtail.engine.runner.resumable_runner import ResumableRunner

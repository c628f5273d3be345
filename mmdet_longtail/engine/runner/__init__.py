"""Training loops and a runner that resume exactly."""

from mmdet_longtail.engine.runner import loops, resumable_runner

__all__ = ['loops', 'resumable_runner']

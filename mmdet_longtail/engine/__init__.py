"""What a config names in ``*_hooks``, ``train_cfg`` and ``runner_type``."""

from mmdet_longtail.engine import file_backend, hooks, runner

__all__ = ['file_backend', 'hooks', 'runner']

"""What a config names in ``*_hooks``, ``train_cfg`` and ``runner_type``."""

from mmdet_longtail.compat import prepare

prepare()

from mmdet_longtail.engine import hooks, runner

__all__ = ['hooks', 'runner']

"""Modules that a config names in ``model``."""

from mmdet_longtail.compat import accept_temperature, prepare

prepare()
accept_temperature()

from mmdet_longtail.models import (
    dense_heads,
    layers,
    losses,
    roi_heads,
    task_modules,
    test_time_augs,
)

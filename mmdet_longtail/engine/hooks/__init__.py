"""Hooks that long-tail training needs."""

from mmdet_longtail.engine.hooks.class_statistics_hook import (
    ClassStatisticsHook,
)
from mmdet_longtail.engine.hooks.classifier_monitor_hook import (
    ClassifierMonitorHook,
)
from mmdet_longtail.engine.hooks.convert_classifier_hook import (
    ConvertClassifierHook,
    RestartClassifierHook,
)
from mmdet_longtail.engine.hooks.feature_cache_hook import FeatureCacheHook
from mmdet_longtail.engine.hooks.finite_loss_hook import FiniteLossHook
from mmdet_longtail.engine.hooks.online_state_hook import OnlineStateHook
from mmdet_longtail.engine.hooks.preemption_hook import PreemptionHook
from mmdet_longtail.engine.hooks.train_only_hook import TrainOnlyHook
from mmdet_longtail.engine.hooks.whole_checkpoint_hook import (
    WholeCheckpointHook,
)

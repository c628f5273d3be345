"""Metrics for large vocabularies, registered in mmdet."""

from mmdet_longtail.compat import prepare

prepare()

from mmengine.hooks import CheckpointHook, EarlyStoppingHook

from mmdet_longtail.evaluation.functional.detections import (
    AP_PREFIX,
    FIXED_AP_PREFIX,
    PROPOSAL_PREFIX,
)
from mmdet_longtail.evaluation.metrics.detection_file_metric import (
    DetectionFileMetric,
)
from mmdet_longtail.evaluation.metrics.frequency_group_metric import (
    FixedAPMetric,
    FrequencyGroupMetric,
)
from mmdet_longtail.evaluation.metrics.open_images_group_metric import (
    OpenImagesGroupMetric,
    equal_groups,
)
from mmdet_longtail.evaluation.metrics.proposal_recall_metric import (
    ProposalRecallMetric,
)

__all__ = [
    'DetectionFileMetric',
    'FixedAPMetric',
    'FrequencyGroupMetric',
    'OpenImagesGroupMetric',
    'ProposalRecallMetric',
    'equal_groups',
]

# More is better: with it save_best='auto' and a monitor need no rule.
for _hook in (CheckpointHook, EarlyStoppingHook):
    _hook._default_greater_keys = [
        *_hook._default_greater_keys,
        f'{AP_PREFIX}/',
        f'{FIXED_AP_PREFIX}/',
        f'{PROPOSAL_PREFIX}/',
        f'{OpenImagesGroupMetric.default_prefix}/',
    ]

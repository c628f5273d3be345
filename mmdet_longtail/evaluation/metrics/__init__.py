"""Metrics for large vocabularies, registered in mmdet."""

from mmdet_longtail.compat import prepare

prepare()

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

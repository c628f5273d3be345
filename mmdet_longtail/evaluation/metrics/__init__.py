"""Metrics for large vocabularies, and their parts for result files."""

from mmdet_longtail.compat import prepare

prepare()

from mmdet_longtail.evaluation.functional.average_precision import (
    Evaluation,
    evaluate,
)
from mmdet_longtail.evaluation.functional.bootstrap import (
    bootstrap,
    interval,
    match,
)
from mmdet_longtail.evaluation.functional.confusions import seen_as
from mmdet_longtail.evaluation.functional.detections import Detections
from mmdet_longtail.evaluation.functional.ground_truth import GroundTruth
from mmdet_longtail.evaluation.metrics.fixed_ap_metric import FixedAPMetric
from mmdet_longtail.evaluation.metrics.frequency_group_metric import (
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
    'Detections',
    'Evaluation',
    'FixedAPMetric',
    'FrequencyGroupMetric',
    'GroundTruth',
    'OpenImagesGroupMetric',
    'ProposalRecallMetric',
    'bootstrap',
    'equal_groups',
    'evaluate',
    'interval',
    'match',
    'seen_as',
]

"""Metrics for large vocabularies, and their parts for result files."""

from .bootstrap import bootstrap, interval, match
from .detections import Detections
from .evaluation import Evaluation, evaluate
from .fixed_ap import FixedAPMetric
from .frequency_group import FrequencyGroupMetric
from .ground_truth import GroundTruth
from .groups import bin_groups, frequency_groups
from .open_images_group import OpenImagesGroupMetric, equal_groups
from .proposal_recall import ProposalRecallMetric
from .whereabouts import seen_as

__all__ = [
    'Detections',
    'Evaluation',
    'FixedAPMetric',
    'FrequencyGroupMetric',
    'GroundTruth',
    'OpenImagesGroupMetric',
    'ProposalRecallMetric',
    'bin_groups',
    'bootstrap',
    'equal_groups',
    'evaluate',
    'frequency_groups',
    'interval',
    'match',
    'seen_as',
]

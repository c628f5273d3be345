"""Metrics for large vocabularies, and their parts for result files."""

from .bootstrap import bootstrap, interval, match
from .detections import Detections
from .evaluation import Evaluation, evaluate
from .fixed_ap import FixedAPMetric
from .frequency_group import FrequencyGroupMetric
from .ground_truth import GroundTruth
from .groups import bin_groups, frequency_groups
from .proposal_recall import ProposalRecallMetric
from .whereabouts import seen_as

__all__ = [
    'Detections',
    'Evaluation',
    'FixedAPMetric',
    'FrequencyGroupMetric',
    'GroundTruth',
    'ProposalRecallMetric',
    'bin_groups',
    'bootstrap',
    'evaluate',
    'frequency_groups',
    'interval',
    'match',
    'seen_as',
]

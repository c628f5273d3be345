"""Metrics for large vocabularies, and their parts for result files."""

from .fixed_ap import FixedAPMetric
from .frequency_group import FrequencyGroupMetric
from .proposal_recall import ProposalRecallMetric

__all__ = ['FixedAPMetric', 'FrequencyGroupMetric', 'ProposalRecallMetric']

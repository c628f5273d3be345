from .frequency_group import FrequencyGroupMetric

__all__ = ['FrequencyGroupMetric']

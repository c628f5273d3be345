"""Samplers that show rare classes more often."""

from .repeat_factor import RepeatFactorSampler

__all__ = ['RepeatFactorSampler']

"""Layers that a classifier can be made of."""

from .scaled_linear import ScaledLinear

__all__ = ['ScaledLinear']

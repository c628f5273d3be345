"""Layers that a classifier can be made of."""

from mmdet_longtail.models.layers.scaled_linear import ScaledLinear

__all__ = ['ScaledLinear']

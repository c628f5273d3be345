"""Layers of classifiers."""

from mmdet_longtail.models.layers.scaled_linear import ScaledLinear

__all__ = ['ScaledLinear']

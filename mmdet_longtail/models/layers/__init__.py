"""Layers of classifiers."""

from mmdet_longtail.models.layers.scaled_linear import (
    ScaledLinear,
    ScaledNormedLinear,
)

"""Heads of one-stage detectors and of detection transformers."""

from .deformable_detr import LongTailDeformableDETRHead

__all__ = ['LongTailDeformableDETRHead']

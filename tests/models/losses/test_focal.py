"""Focal Loss in RoI heads."""

from __future__ import annotations

import torch
from loss_cases import build
from loss_contract import C, labels_of, scores_of
from torch import nn


def test_focal_loss_without_focus_is_cross_entropy():
    loss = build('RoIFocalLoss', gamma=0.0, alpha=0.5, prior_prob=0.5)
    scores, labels = scores_of(loss, 20), labels_of(loss, 20)
    one_hot = nn.functional.one_hot(labels, C + 1)[:, :C].double()
    plain = nn.functional.binary_cross_entropy_with_logits(
        scores, one_hot, reduction='sum'
    )
    torch.testing.assert_close(loss(scores, labels), plain / 2 / 20)

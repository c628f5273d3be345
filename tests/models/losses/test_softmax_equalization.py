"""Softmax Equalization Loss (SEQL)."""

from __future__ import annotations

import math

import pytest
import torch
from loss_cases import build
from loss_contract import C, labels_of, scores_of
from torch import nn

from mmdet_longtail.models.losses import SoftmaxEqualizationClassificationLoss
from mmdet_longtail.models.losses.softmax_equalization import sample_ignored
from mmdet_longtail.structures import ClassStatistics


def test_softmax_equalization_golden_values():
    """Worked by hand from Eq. 9 to 11 for three classes, beta drawn 1."""
    statistics = ClassStatistics(
        ('a', 'b', 'c'), [500, 10, 1], [500, 10, 1], 1000, 510
    )
    scores = torch.tensor([[1, -1, 0.5]], dtype=torch.float64)
    for probability, expected in (
        (1.0, 0.12692801104297247),
        (0.0, 0.5549569196419907),
    ):
        loss = SoftmaxEqualizationClassificationLoss(
            3, frequency_threshold=1.76e-3, ignore_probability=probability
        )
        loss.set_class_statistics(statistics)
        value = loss(scores, torch.tensor([0])).item()
        assert value == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    'setting', [dict(ignore_probability=0.0), dict(frequency_threshold=0.0)]
)
def test_softmax_equalization_without_tail_is_cross_entropy(setting):
    loss = build('SoftmaxEqualizationLoss', **setting)
    scores = scores_of(loss, 20).requires_grad_()
    labels = labels_of(loss, 20)
    plain = nn.functional.cross_entropy(scores, labels)
    value = loss(scores, labels)
    torch.testing.assert_close(value, plain)
    torch.testing.assert_close(
        *(torch.autograd.grad(x, scores)[0] for x in (value, plain))
    )
    torch.testing.assert_close(loss.get_activation(scores), scores.softmax(1))


def test_columns_are_ignored_with_the_given_probability():
    T = torch.tensor([1.0, 0, 1, 1, 0])
    labels = torch.arange(4000) % 5
    torch.manual_seed(0)
    ignored = sample_ignored(labels, T, 0.75)
    assert not ignored[torch.arange(4000), labels].any()
    for column in range(5):
        others = ignored[labels != column, column]
        expected = 3200 * 0.75 * T[column]
        # five standard deviations of a binomial
        assert (others.sum() - expected).abs() <= 5 * math.sqrt(600)
    # one draw for each row and class, so tail columns do not agree
    rows = labels == 1
    assert 0.1 < (ignored[rows, 0] != ignored[rows, 2]).double().mean() < 0.9


def test_ignored_columns_get_no_gradient_and_background_rows_ignore_none():
    loss = build('SoftmaxEqualizationLoss')
    scores = scores_of(loss, 2, scale=1e4).requires_grad_()
    loss(scores, torch.tensor([1, C]), reduction_override='sum').backward()
    scores = scores_of(loss, 2).requires_grad_()
    loss(scores, torch.tensor([1, C]), reduction_override='sum').backward()
    is_tail = loss.tail_weight.bool()
    assert (scores.grad[0, :C][is_tail] == 0).all()
    assert (scores.grad[0, :C][~is_tail] != 0).all()
    assert (scores.grad[1] != 0).all()

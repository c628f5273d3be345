"""DropLoss."""

from __future__ import annotations

import naive
import pytest
import torch
from loss_cases import build
from loss_contract import (
    C,
    assert_is_sigmoid_cross_entropy,
    labels_of,
    scores_of,
)
from torch import nn

from mmdet_longtail.models.losses import drop_weight

SETTINGS = dict(frequency_threshold=0.05)


def published_weight(labels, is_tail):
    """The weights by the calls of the published code, in their order."""
    is_foreground = labels != len(is_tail)
    foreground = is_foreground.float()[:, None].expand(-1, len(is_tail))
    background = 1 - foreground
    random = torch.rand_like(background) * background
    ratio = is_tail[labels[is_foreground]].float().mean()
    drawn = torch.where(random > ratio, 1.0, 0.0)
    target = nn.functional.one_hot(labels, len(is_tail) + 1)[:, :-1]
    return 1 - (drawn + foreground) * is_tail.float() * (1 - target)


@pytest.mark.parametrize('scale', [1.0, 1e4])
@pytest.mark.parametrize('seed', range(5))
def test_one_random_state_gives_the_published_loss(seed, scale):
    loss = build('DropLoss', prior_prob=None, **SETTINGS)
    scores, labels = scores_of(loss, 40, seed, scale), labels_of(loss, 40)
    is_tail = loss.tail_weight.bool()
    torch.manual_seed(seed)
    weight = published_weight(labels, is_tail)
    torch.manual_seed(seed)
    random = torch.rand(40, C)
    by_loop = naive.drop_weights(
        labels.tolist(), is_tail.tolist(), random.tolist()
    )
    assert weight.tolist() == by_loop
    assert 0 < weight[labels == C][:, is_tail].mean() < 1
    torch.manual_seed(seed)
    value = loss(scores, labels, reduction_override='none')
    expected = naive.weighted_sigmoid(
        scores.tolist(), labels.tolist(), by_loop
    )
    torch.testing.assert_close(value, torch.tensor(expected).double())


def test_a_batch_without_foreground_drops_nothing():
    labels, is_tail = torch.full((50,), C), torch.ones(C)
    random = torch.rand(50, C, generator=torch.Generator().manual_seed(0))
    assert drop_weight(labels, is_tail, random).min() == 1
    # The share of tail classes in the batch decides.
    labels[0], is_tail[0] = 0, 0
    assert drop_weight(labels, is_tail, random)[1:, 1:].max() == 0


def test_without_tail_it_is_cross_entropy():
    loss = build('DropLoss', frequency_threshold=0.0, prior_prob=None)
    assert_is_sigmoid_cross_entropy(loss)


def test_a_box_drops_what_equalization_spares():
    """The rows of foreground are those of EQL."""
    drop, eql = (
        build(name, **SETTINGS) for name in ('DropLoss', 'EqualizationLoss')
    )
    scores = scores_of(drop, 20)
    labels = labels_of(drop, 20) % C
    torch.testing.assert_close(drop(scores, labels), eql(scores, labels))

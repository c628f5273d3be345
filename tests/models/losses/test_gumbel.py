"""Gumbel activation (GOL)."""

from __future__ import annotations

import math

import naive
import pytest
import torch
from loss_cases import build
from loss_contract import C, labels_of, scores_of
from torch import nn

NAMES = ('GumbelDropLoss', 'GumbelEqualizationLoss')
SETTINGS = dict(frequency_threshold=0.05)


@pytest.mark.parametrize('scale', [1.0, 1e4])
@pytest.mark.parametrize('seed', range(5))
def test_one_random_state_gives_the_published_loss(seed, scale):
    """Published on C columns, with the prior in the bias."""
    loss = build('GumbelDropLoss', prior_prob=None, **SETTINGS)
    scores, labels = scores_of(loss, 40, seed, scale), labels_of(loss, 40)
    torch.manual_seed(seed)
    random = torch.rand(40, C)
    weights = naive.drop_weights(
        labels.tolist(), loss.tail_weight.bool().tolist(), random.tolist()
    )
    assert any(0 in row for row in weights)
    torch.manual_seed(seed)
    value = loss(scores, labels, reduction_override='none')
    expected = naive.weighted_gumbel(scores.tolist(), labels.tolist(), weights)
    torch.testing.assert_close(value, torch.tensor(expected).double())


@pytest.mark.parametrize('name', NAMES)
def test_gradient_is_that_of_binary_cross_entropy(name):
    """The published code's, where p is not below 1e-12."""
    loss = build(name, frequency_threshold=0.0, prior_prob=None)
    scores = scores_of(loss, 40).clamp(-3.3, 12).requires_grad_()
    labels = labels_of(loss, 40)
    one_hot = nn.functional.one_hot(labels, C + 1)[:, :C].double()
    p = torch.exp(-torch.exp(-scores.clamp(-4, 10)))
    plain = nn.functional.binary_cross_entropy(p, one_hot, reduction='sum')
    value = loss(scores, labels)
    torch.testing.assert_close(value, plain / 40)
    torch.testing.assert_close(
        *(torch.autograd.grad(x, scores)[0] for x in (value, plain / 40))
    )


@pytest.mark.parametrize('name', NAMES)
def test_prior_is_the_released_bias(name):
    """A zero logit is one of -2."""
    loss, bare = build(name), build(name, prior_prob=None)
    scores, labels = scores_of(loss, 20), labels_of(loss, 20)
    for each in (loss, bare):
        torch.manual_seed(0)
        each.value = each(scores - (0 if each is loss else 2), labels)
    torch.testing.assert_close(loss.value, bare.value)
    assert loss.prior_logit == pytest.approx(-2)
    probs = loss.get_activation(torch.zeros(1, C))
    assert probs[0, :C].tolist() == pytest.approx([math.exp(-math.exp(2))] * C)
    found = build(name, prior_prob=0.3).get_activation(torch.zeros(1, C))
    assert found[0].tolist() == pytest.approx([0.3] * C + [0])


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('scale', [1.0, 50.0, 1e4])
def test_activation_equals_the_naive_loop(name, scale):
    loss = build(name)
    scores = scores_of(loss, 20, scale=scale)
    torch.testing.assert_close(
        loss.get_activation(scores),
        torch.tensor(
            naive.gumbels(scores.tolist(), loss.prior_logit)
        ).double(),
    )


def test_logits_out_of_range_have_no_gradient():
    loss = build('GumbelDropLoss', prior_prob=None)
    scores = torch.tensor([[-5.0, 11.0] + [0.0] * (C - 2)]).requires_grad_()
    loss(scores, torch.tensor([0])).backward()
    assert scores.grad[0, :2].tolist() == [0, 0]


@pytest.mark.parametrize('scale', [1.0, 1e4])
def test_verified_classes_are_not_spared(scale):
    loss = build('GumbelEqualizationLoss', **SETTINGS)
    scores, labels = scores_of(loss, 20, scale=scale), labels_of(loss, 20)
    verified = torch.ones(20, C, dtype=torch.bool)
    with loss.verifying(verified):
        value = loss(scores, labels, reduction_override='none')
    expected = naive.weighted_gumbel(
        scores.tolist(), labels.tolist(), [[1.0] * C] * 20, loss.prior_logit
    )
    torch.testing.assert_close(value, torch.tensor(expected).double())

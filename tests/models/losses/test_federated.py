"""Federated loss."""

from __future__ import annotations

import math

import naive
import pytest
import torch
from loss_cases import build
from loss_contract import (
    INSTANCE_COUNT,
    C,
    assert_is_sigmoid_cross_entropy,
    labels_of,
    scores_of,
    statistics_of,
)

from mmdet_longtail.models.losses import (
    FederatedLoss,
    sample_classes,
)

WEIGHT = statistics_of(INSTANCE_COUNT).image_count.astype('float32') ** 0.5


def detectron2_classes(labels, weight, num_sampled_classes):
    """S of a batch as Detectron2 draws it, as a set of labels.

    It follows fast_rcnn.py (get_fed_loss_classes) call by call, because the
    random stream is part of the method.
    """
    unique = torch.unique(torch.tensor(labels))
    prob = torch.ones(len(weight) + 1)
    prob[-1] = 0
    if len(unique) < num_sampled_classes:
        prob[:-1] = torch.tensor(weight)
        prob[unique] = 0
        drawn = torch.multinomial(
            prob, num_sampled_classes - len(unique), replacement=False
        )
        unique = torch.cat([unique, drawn])
    return {c for c in unique.tolist() if c < len(weight)}


@pytest.mark.parametrize('num_sampled', [1, 2, 4, 7, 50])
@pytest.mark.parametrize(
    'labels',
    [[0, 0, 3, C], [0, 0, 3], [C, C], [2, C], [*range(C), C], [1] * 5],
)
def test_one_random_state_draws_the_classes_of_detectron2(labels, num_sampled):
    weight = torch.tensor(WEIGHT)
    for seed in range(10):
        torch.manual_seed(seed)
        found = sample_classes(torch.tensor(labels), weight, num_sampled)
        num_candidates = sum(
            n > 0 and c not in labels for c, n in enumerate(INSTANCE_COUNT)
        )
        # Detectron2 draws classes of weight 0 where more are wanted.
        torch.manual_seed(seed)
        wanted = min(num_sampled, len(set(labels)) + num_candidates)
        expected = detectron2_classes(labels, WEIGHT.tolist(), wanted)
        assert {*found.nonzero().flatten().tolist()} == expected


@pytest.mark.parametrize('power', [0.5, 1.0])
def test_one_random_state_draws_the_classes_of_lvis(power):
    """Of a vocabulary of LVIS's size, and a batch of its size."""
    generator = torch.Generator().manual_seed(0)
    count = torch.randint(1, 2000, (1203,), generator=generator)
    labels = torch.randint(0, 2000, (1024,), generator=generator)
    labels = labels.where(labels < 20, 1203)
    loss = FederatedLoss(1203, power=power)
    loss.set_class_statistics(statistics_of(count.numpy(), 5000))
    weight = (count.float() ** power).tolist()
    assert loss.sampling_weight.tolist() == weight
    for seed in range(5):
        torch.manual_seed(seed)
        found = sample_classes(labels, loss.sampling_weight, 50)
        torch.manual_seed(seed)
        expected = detectron2_classes(labels.tolist(), weight, 50)
        assert {*found.nonzero().flatten().tolist()} == expected
        # Background is in the batch and is one of the fifty.
        assert found.sum() == 49


@pytest.mark.parametrize('scale', [1.0, 1e4])
def test_a_draw_counts_for_all_rows(scale):
    loss = build('FederatedLoss', num_sampled_classes=6, prior_prob=None)
    scores = scores_of(loss, 4, scale=scale)
    labels = torch.tensor([0, 0, 3, C])
    torch.manual_seed(1)
    drawn_classes = detectron2_classes(labels.tolist(), WEIGHT.tolist(), 6)
    assert len(drawn_classes) == 5 and {0, 3} < drawn_classes
    torch.manual_seed(1)
    value = loss(scores, labels, reduction_override='none')
    expected = naive.weighted_sigmoid(
        scores.tolist(),
        labels.tolist(),
        [[c in drawn_classes for c in range(C)]] * 4,
    )
    torch.testing.assert_close(value, torch.tensor(expected).double())


def test_classes_are_drawn_by_the_root_of_their_images():
    """One class of ten, five standard deviations of a binomial."""
    labels, weight = torch.tensor([C]), torch.tensor(WEIGHT)
    torch.manual_seed(0)
    draws = 4000
    total = sum(sample_classes(labels, weight, 2) for _ in range(draws))
    p = weight / weight.sum()
    assert (total.sum(), total[INSTANCE_COUNT.index(0)]) == (draws, 0)
    deviation = (draws * p * (1 - p)).sqrt()
    assert ((total - draws * p).abs() <= 5 * deviation).all()


def test_classes_without_images_are_trained_when_a_box_has_them():
    loss = build('FederatedLoss')
    empty = INSTANCE_COUNT.index(0)
    for label, is_trained in ((0, False), (empty, True)):
        scores = scores_of(loss, 1).requires_grad_()
        loss(scores, torch.tensor([label])).backward()
        assert (scores.grad[0, empty] != 0) == is_trained


@pytest.mark.parametrize('num_sampled', [C + 1, 50])
def test_small_vocabularies_train_all_classes(num_sampled):
    """Plain sigmoid cross-entropy, gradients too."""
    loss = build(
        'FederatedLoss',
        statistics_of([3, 1, 400, 20, 5, 6, 7, 8, 9, 10]),
        num_sampled_classes=num_sampled,
        prior_prob=None,
    )
    assert_is_sigmoid_cross_entropy(loss)


def test_prior_is_a_shift_of_the_logits():
    loss = build('FederatedLoss')
    paper = build('FederatedLoss', prior_prob=None)
    scores, labels = scores_of(loss, 20), labels_of(loss, 20)
    shifted = scores + math.log(0.01 / 0.99)
    torch.testing.assert_close(loss(scores, labels), paper(shifted, labels))
    torch.testing.assert_close(
        loss.get_activation(scores),
        torch.tensor(naive.sigmoids(shifted.tolist())).double(),
    )


@pytest.mark.parametrize('scale', [1.0, 1e4])
def test_only_verified_classes_count(scale):
    loss = build('VerifiedFederatedLoss', prior_prob=None)
    scores, labels = scores_of(loss, 20, scale=scale), labels_of(loss, 20)
    generator = torch.Generator().manual_seed(5)
    verified = torch.rand(20, C, generator=generator) < 0.3
    with loss.verifying(verified):
        value = loss(scores, labels, reduction_override='none')
    expected = naive.weighted_sigmoid(
        scores.tolist(), labels.tolist(), verified.tolist()
    )
    torch.testing.assert_close(value, torch.tensor(expected).double())

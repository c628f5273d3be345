"""Equalization Loss (EQL)."""

from __future__ import annotations

import json
import math
import re

import naive
import numpy as np
import pytest
import torch
from loss_cases import build, equalization
from loss_contract import (
    INSTANCE_COUNT,
    LVIS,
    C,
    assert_is_sigmoid_cross_entropy,
    labels_of,
    scores_of,
    statistics_of,
)
from torch import nn

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.losses import (
    EqualizationLoss,
    SoftmaxEqualizationClassificationLoss,
)
from mmdet_longtail.models.losses.equalization import sample_ignored
from mmdet_longtail.structures import ClassStatistics
from mmdet_longtail.structures.suggestions import suggest_settings
from mmdet_longtail.structures.tail_weight import (
    ExponentialTailWeight,
    GompertzTailWeight,
)


def test_equalization_golden_values():
    """Worked by hand from Eq. 7 for three classes."""
    statistics = ClassStatistics(
        ('a', 'b', 'c'), [500, 10, 1], [500, 10, 1], 1000, 510
    )
    scores = torch.tensor(
        [[1, -1, 0.5], [0.2, 0.3, -2], [-1, 2, 0]],
        dtype=torch.float64,
        requires_grad=True,
    )
    labels = torch.tensor([0, 3, 2])
    loss = EqualizationLoss(3, frequency_threshold=1.76e-3, prior_prob=None)
    loss.set_class_statistics(statistics)
    value = loss(scores, labels)
    value.backward()
    # mmdet's mean divides by avg_factor + 1e-7
    assert value.item() == pytest.approx(1.846427459683559, rel=1e-7)
    expected = torch.tensor(
        [
            [-0.089647, 0.089647, 0],
            [0.183278, 0.191481, 0.039734],
            [0.089647, 0.293599, -0.166667],
        ],
        dtype=torch.float64,
    )
    torch.testing.assert_close(scores.grad, expected, rtol=0, atol=1e-6)
    plain = EqualizationLoss(3, frequency_threshold=0.0, prior_prob=None)
    plain.set_class_statistics(statistics)
    assert plain(scores, labels).item() == pytest.approx(
        2.1711197877435944, rel=1e-7
    )


def test_equalization_without_tail_is_cross_entropy():
    loss = build('EqualizationLoss', frequency_threshold=0.0, prior_prob=None)
    assert_is_sigmoid_cross_entropy(loss)


def test_prior_is_a_shift_of_the_logits():
    """EQL on z with prior p is the paper's on z + logit(p)."""
    loss = build('EqualizationLoss', prior_prob=0.01)
    paper = build('EqualizationLoss', prior_prob=None)
    scores, labels = scores_of(loss, 20), labels_of(loss, 20)
    shifted = scores + math.log(0.01 / 0.99)
    torch.testing.assert_close(loss(scores, labels), paper(shifted, labels))
    torch.testing.assert_close(
        loss.get_activation(scores), paper.get_activation(shifted)
    )
    torch.testing.assert_close(
        loss.get_activation(scores),
        torch.tensor(naive.sigmoids(shifted.tolist()), dtype=torch.float64),
    )


def test_first_loss_of_a_large_head_is_small():
    num_classes = 1203
    loss = EqualizationLoss(num_classes)
    loss.set_class_statistics(
        statistics_of(np.arange(1, num_classes + 1), num_images=5000)
    )
    labels = torch.full((512,), num_classes)
    labels[:128] = torch.arange(128)
    value = loss(0.1 * torch.randn(512, num_classes), labels)
    assert value < 10


def test_threshold_comes_from_the_tail_ratio_or_from_the_user():
    statistics = statistics_of(INSTANCE_COUNT)
    derived = build(
        'EqualizationLoss',
        statistics,
        frequency_threshold=None,
        tail_ratio=0.05,
    )
    threshold = statistics.threshold_for_tail_ratio(0.05)
    expected = statistics.image_frequency < threshold
    assert 0 < expected.sum() < C
    assert derived.tail_weight.bool().tolist() == expected.tolist()
    given = build('EqualizationLoss', statistics, frequency_threshold=0.031)
    assert given.tail_weight.tolist() == [1, 0, 1, 0, 0, 1, 0, 0, 1, 1]


@pytest.mark.parametrize(
    'threshold, words',
    [
        (1e-6, 'makes 1 of 10 .*plain sigmoid'),
        (1.0, 'makes 10 of 10 .*no class suppresses'),
    ],
)
def test_useless_threshold_is_said_once(threshold, words, said):
    statistics = statistics_of(INSTANCE_COUNT)
    for _ in range(2):
        build('EqualizationLoss', statistics, frequency_threshold=threshold)
    messages = said()
    assert len(messages) == 1
    suggested = suggest_settings(statistics)['frequency_threshold'].value
    assert f'suggests frequency_threshold={suggested:g}' in messages[0]
    assert re.search(words, messages[0])


def trained_on(counts, **settings):
    """The loss with counts of 1,000 images, and these."""
    statistics = statistics_of(counts)
    loss = EqualizationLoss(len(counts), **settings)
    loss.set_class_statistics(statistics)
    return loss, statistics


@pytest.mark.parametrize('counts', [[4, 4, 4, 4], [4, 3, 2, 1], [1], [9, 9]])
@pytest.mark.parametrize('settings', [{}, {'frequency_threshold': 0.001}])
def test_even_data_gets_no_threshold(counts, settings, said):
    """The value that is set would be suggested again."""
    trained_on(counts, **settings)
    [message] = said()
    assert 'suggests' not in message and 'use a plain loss' in message


def test_the_suggested_threshold_is_not_a_warning(said):
    """A class of one image is as long a tail as these counts allow."""
    statistics = statistics_of([500, 400, 1])
    suggested = suggest_settings(statistics)['frequency_threshold'].value
    assert 0 < statistics.tail_ratio(suggested) < 0.005
    trained_on([500, 400, 1], frequency_threshold=suggested)
    assert not said()


def test_the_first_tail_classes_are_named():
    """A class exactly on lambda is not tail."""
    counts = [500, 20, 10, 1, 2, 3, 4, 5, 6]
    loss, statistics = trained_on(counts, frequency_threshold=0.01)
    assert loss.describe(statistics)['num_tail_classes'] == 6
    names = statistics.class_names
    assert loss.describe_classes(statistics) == [
        'frequency_threshold (lambda) is 0.01: 6 of 9 classes are tail, tail '
        f'ratio 3.81%: {", ".join(names[3:8])} and 1 more'
    ]
    assert (
        trained_on(counts, frequency_threshold=0)[0]
        .describe_classes(statistics)[0]
        .endswith('0 of 9 classes are tail, tail ratio 0.00%')
    )


@pytest.mark.parametrize(
    'kind', ['mmdet.GompertzTailWeight', GompertzTailWeight]
)
def test_a_tail_weight_is_named_in_any_way(kind):
    loss = EqualizationLoss(C, tail_weight=dict(type=kind, a=0.5))
    assert loss.decay == GompertzTailWeight(a=0.5)


def test_plain_sigmoid_on_purpose_is_not_a_warning(said):
    build('EqualizationLoss', frequency_threshold=0.0)
    build('EqualizationLoss', frequency_threshold=None, tail_ratio=0.0)
    assert not said()


DECAYS = {
    'ThresholdTailWeight': (dict(), lambda f, t: float(f < t)),
    'ExponentialTailWeight': (
        dict(a=30, n=2),
        lambda f, t: naive.exponential_decay(f, t, 30, 2),
    ),
    'GompertzTailWeight': (
        dict(a=0.9, b=8, c=50),
        lambda f, t: naive.gompertz_decay(f, t, 0.9, 8, 50),
    ),
}


@pytest.mark.parametrize('name', DECAYS)
@pytest.mark.parametrize('threshold', [0.031, 1.0])
def test_tail_weight_equals_the_naive_loop(name, threshold):
    settings, decay = DECAYS[name]
    loss = build(
        'EqualizationLoss',
        frequency_threshold=threshold,
        tail_weight=dict(type=name, **settings),
    )
    frequencies = statistics_of(INSTANCE_COUNT).image_frequency
    expected = [decay(f, threshold) for f in frequencies.tolist()]
    assert loss.tail_weight.tolist() == pytest.approx(expected, rel=1e-6)
    assert (loss.tail_weight >= 0).all() and (loss.tail_weight <= 1).all()
    scores, labels = scores_of(loss, 20), labels_of(loss, 20)
    value = loss(scores, labels, reduction_override='none')
    expected_rows = torch.tensor(
        equalization(loss, scores.tolist(), labels.tolist())
    )
    torch.testing.assert_close(value, expected_rows, check_dtype=False)


@pytest.mark.parametrize('instance_threshold', [0, 17, 18, 1e9])
def test_tail_by_boxes_equals_the_naive_loop(instance_threshold):
    """A class of exactly lambda boxes is not tail."""
    counts = [500, 18, 17, 1, 0, 3]
    loss, statistics = trained_on(
        counts,
        tail_weight=dict(
            type='InstanceCountTailWeight',
            instance_threshold=instance_threshold,
        ),
        frequency_threshold=1.0,
    )
    expected = []
    for count in statistics.instance_count.tolist():
        expected.append(1.0 if count < instance_threshold else 0.0)
    assert loss.tail_weight.tolist() == expected
    described = loss.describe(statistics)
    assert described['instance_threshold'] == instance_threshold
    assert described['num_tail_classes'] == sum(expected)


def test_tail_by_boxes_of_open_images():
    """The released lambda selects 250 of the 500 classes."""
    path = LVIS.parent / 'openimages_challenge2019_train_counts.json'
    if not path.exists():
        pytest.skip(f'{path} is absent')
    counts = np.array(json.loads(path.read_text())['instance_count'])
    settings = dict(type='InstanceCountTailWeight', instance_threshold=1652)
    loss, _ = trained_on(counts, tail_weight=settings)
    assert (len(counts), int(loss.tail_weight.sum())) == (500, 250)


def test_a_tail_by_boxes_names_its_key(said):
    settings = dict(type='InstanceCountTailWeight', instance_threshold=1e9)
    loss, statistics = trained_on([500, 20, 1], tail_weight=settings)
    (message,) = said()
    assert 'instance_threshold=1e+09 makes 3 of 3 classes tail' in message
    (line,) = loss.describe_classes(statistics)
    assert line.startswith('instance_threshold (lambda) is 1e+09: 3 of 3')


def test_decays_have_the_values_of_the_paper():
    """Table 3's settings at the ends of LVIS v0.5's tail."""
    f = np.array([0.0, 1.76e-3, 2.5e-3, 0.5])
    assert ExponentialTailWeight()(f) == pytest.approx([1, 1 - 0.704**2, 0, 0])
    assert GompertzTailWeight()(f) == pytest.approx(
        [1, 0.335, 0.0433, 0], abs=5e-4
    )


def test_without_exclude_background_its_negatives_spare_the_tail_too():
    loss = build('EqualizationLoss', exclude_background=False)
    scores, labels = scores_of(loss, 20), labels_of(loss, 20)
    expected = naive.equalization(
        scores.tolist(),
        labels.tolist(),
        loss.tail_weight.tolist(),
        loss.prior_logit,
        exclude_background=False,
    )
    value = loss(scores, labels, reduction_override='none')
    torch.testing.assert_close(value, torch.tensor(expected).double())
    is_background = labels == C
    whole = build('EqualizationLoss')(
        scores, labels, reduction_override='none'
    )
    assert (value[is_background] < whole[is_background]).all()
    assert torch.equal(value[~is_background], whole[~is_background])


@pytest.mark.parametrize('exclude_background', [True, False])
@pytest.mark.parametrize('scale', [1.0, 1e4])
def test_verified_classes_are_not_spared(exclude_background, scale):
    loss = build('EqualizationLoss', exclude_background=exclude_background)
    scores, labels = scores_of(loss, 20, scale=scale), labels_of(loss, 20)
    generator = torch.Generator().manual_seed(5)
    verified = torch.rand(20, C, generator=generator) < 0.3
    expected = naive.equalization(
        scores.tolist(),
        labels.tolist(),
        loss.tail_weight.tolist(),
        loss.prior_logit,
        exclude_background=exclude_background,
        verified=verified.tolist(),
    )
    with loss.verifying(verified):
        value = loss(scores, labels, reduction_override='none')
    torch.testing.assert_close(value, torch.tensor(expected).double())
    with pytest.raises(ZeroDivisionError), loss.verifying(verified):
        1 / 0  # noqa: B018
    assert loss.verified_classes is None


@pytest.mark.parametrize(
    'config, words',
    [
        (dict(type='ExponentialTailWeight', a=0), 'a is 0'),
        (dict(type='ExponentialTailWeight', n=-1), 'n is -1'),
        (dict(type='GompertzTailWeight', a=2), 'a is 2'),
        (dict(type='GompertzTailWeight', c=math.inf), 'c is inf'),
        (
            dict(type='InstanceCountTailWeight', instance_threshold=-1),
            'instance_threshold is -1',
        ),
        (dict(type='LinearTailWeight'), "'LinearTailWeight'.*Gompertz"),
        (dict(a=400), "'type'"),
    ],
)
def test_tail_weight_out_of_range_is_one_line(config, words):
    with pytest.raises(LongTailError, match=words) as error:
        EqualizationLoss(C, tail_weight=config)
    assert '\n' not in str(error.value)


# -- softmax Equalization Loss (SEQL) --------------------------------------


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

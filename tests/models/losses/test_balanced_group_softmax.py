"""Balanced Group Softmax (BAGS)."""

from __future__ import annotations

import math

import naive
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_cases import build
from loss_contract import (
    C,
    labels_of,
    lvis_counts,
    scores_of,
    statistics_of,
    total,
)
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from tiny import write_config
from torch import nn

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.losses import (
    BalancedGroupSoftmaxLoss,
    BalancedGroupSoftmaxWithoutBackgroundLoss,
    BalancedGroupSoftmaxWithoutOthersLoss,
    ReweightedBalancedGroupSoftmaxLoss,
    sample_others,
)
from mmdet_longtail.models.utils.head_support import check_head_support
from mmdet_longtail.structures import ClassStatistics
from mmdet_longtail.structures.class_statistics import (
    bin_names,
)
from mmdet_longtail.structures.suggestions import suggest_bin_edges


def golden_group_softmax(others_ratio):
    """Classes a, b in the first bin and c, d in the second."""
    loss = BalancedGroupSoftmaxLoss(
        4, bin_edges=(10,), others_ratio=others_ratio
    )
    loss.set_class_statistics(
        ClassStatistics(
            ('a', 'b', 'c', 'd'), [1, 1, 20, 20], [1, 1, 20, 20], 100, 40
        )
    )
    # [bg, fg | others, a, b | others, c, d] -> our order of columns
    rows = torch.tensor(
        [
            [0.5, 1.5, 0.2, 1, -0.5, 1.2, 0.3, 2],
            [1, 0, 0.5, 0.5, 0.1, 0, 0.2, 0.3],
            [0, 1, 2, 0, 0, 0.1, 0.1, 1],
            [2, 0, 1, 0, 0, 1, 0, 0],
        ],
        dtype=torch.float64,
    )
    scores = rows[:, [3, 4, 6, 7, 2, 5, 1, 0]]
    return loss, scores, torch.tensor([0, 4, 3, 4])


def test_group_softmax_golden_values():
    loss, scores, labels = golden_group_softmax(8.0)
    values = loss(scores, labels)
    assert list(values) == [
        'loss_cls_below_10',
        'loss_cls_from_10',
        'loss_cls_foreground',
    ]
    assert [value.item() for value in values.values()] == pytest.approx(
        [0.57187072120807, 0.92730932729442, 0.26667826839940], abs=1e-6
    )
    merged = loss.get_activation(scores)[0].tolist()
    assert merged == pytest.approx(
        [0.437116, 0.097534, 0.081833, 0.447949, 0.268941], abs=1e-6
    )
    loss, scores, labels = golden_group_softmax(0.0)
    values = [value.item() for value in loss(scores, labels).values()]
    assert values == pytest.approx(
        [0.51429507282063, 0.59505977354243, 0.26667826839940], abs=1e-6
    )


def test_one_bin_is_softmax_with_an_objectness():
    """G = 1 of C classes and others: F.cross_entropy on both groups."""
    loss = build('BalancedGroupSoftmaxLoss', bin_edges=(10000,))
    scores = scores_of(loss, 20).requires_grad_()
    labels = labels_of(loss, 20)
    columns = [*range(C), C]
    plain = nn.functional.cross_entropy(
        scores[:, columns], labels
    ) + nn.functional.cross_entropy(scores[:, -2:], (labels == C).long())
    value = total(loss(scores, labels))
    torch.testing.assert_close(value, plain)
    torch.testing.assert_close(
        *(torch.autograd.grad(x, scores)[0] for x in (value, plain))
    )


def test_bin_without_foreground_is_zero_and_keeps_the_graph():
    loss = build('BalancedGroupSoftmaxLoss')
    scores = scores_of(loss, 6).requires_grad_()
    labels = torch.tensor([0, 5, 8, C, C, C])  # the first bin only
    values = loss(scores, labels)
    for name in ('10_to_100', '100_to_1000', 'from_1000'):
        value = values[f'loss_cls_{name}']
        assert value.item() == 0 and value.requires_grad
    total(values).backward()
    own = [0, 2, 5, 8, C]  # the classes below 10 boxes and their others
    touched = scores.grad.abs().sum(0) > 0
    assert touched.nonzero().flatten().tolist() == [*own, C + 4, C + 5]


@given(
    num_own=st.integers(0, 6),
    num_other=st.integers(0, 60),
    others_ratio=st.sampled_from([0.0, 0.5, 1.0, 3.0, 8.0]),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_number_of_drawn_others(num_own, num_other, others_ratio, seed):
    torch.manual_seed(seed)
    is_own = torch.zeros(num_own + num_other, 1, dtype=torch.bool)
    is_own[:num_own] = True
    drawn = sample_others(is_own, ~is_own, others_ratio)
    assert drawn.sum() == min(int(others_ratio * num_own), num_other)
    assert not (drawn & is_own).any()


def test_others_are_drawn_uniformly_and_by_seed():
    in_bin = torch.tensor([True] + [False] * 10).unsqueeze(1)
    torch.manual_seed(0)
    counts = sum(
        sample_others(in_bin, ~in_bin, 3.0).long() for _ in range(4000)
    )
    # 3 of 10 each time; five standard deviations of a binomial
    assert (counts[1:] - 1200).abs().max() < 5 * math.sqrt(4000 * 0.3 * 0.7)
    torch.manual_seed(7)
    first = sample_others(in_bin, ~in_bin, 3.0)
    torch.manual_seed(7)
    assert torch.equal(first, sample_others(in_bin, ~in_bin, 3.0))


def test_rows_of_weight_zero_are_neither_positive_nor_drawn():
    loss = build('BalancedGroupSoftmaxLoss', others_ratio=2.0)
    labels = torch.tensor([0, 0, 1, C, C, C, C, C])
    label_weights = torch.tensor([1.0, 0, 0, 1, 1, 1, 0, 0])
    for _ in range(20):
        weights = loss.row_weights(labels, label_weights)
        assert (weights[label_weights == 0] == 0).all()
        assert weights[:, 0].sum() == 3  # one positive, two drawn
        assert weights[:, 3].sum() == 0  # its only positive has weight 0


def test_class_on_an_edge_is_in_the_upper_bin():
    loss = BalancedGroupSoftmaxLoss(4, bin_edges=(10, 100))
    loss.set_class_statistics(statistics_of([9, 10, 99, 100]))
    assert loss.bin_index.tolist() == [0, 1, 1, 2]


def test_other_bin_edges_than_the_checkpoint_are_an_error():
    state = build('BalancedGroupSoftmaxLoss').state_dict()
    other = BalancedGroupSoftmaxLoss(C, bin_edges=(10, 100, 300))
    with pytest.raises(LongTailError, match=r'bin_edges is .* with'):
        other.load_state_dict(state)


def test_everything_in_one_bin_is_said_once(said):
    for _ in range(2):
        build('BalancedGroupSoftmaxLoss', bin_edges=(5000,))
    messages = said()
    assert len(messages) == 1
    assert 'in one bin' in messages[0] and 'suggests bin_edges=' in messages[0]


@pytest.mark.parametrize(
    ('counts', 'edges'), [([5, 6, 7, 8], (10, 100)), ([1000, 2000], (500,))]
)
def test_even_data_gets_no_bins(counts, edges, said):
    statistics = statistics_of(counts)
    loss = BalancedGroupSoftmaxLoss(len(counts), bin_edges=edges)
    loss.set_class_statistics(statistics)
    [message] = said()
    assert 'suggests' not in message and 'use a plain loss' in message


def test_the_first_classes_of_bins_are_named():
    statistics = statistics_of([9, 10, 11, 12, 13, 14, 15, 200])
    loss = BalancedGroupSoftmaxLoss(8, bin_edges=(10, 100, 1000))
    names = statistics.class_names
    assert loss.describe_classes(statistics) == [
        f'bin below_10: 1 classes, 9 boxes: {names[0]}',
        f'bin 10_to_100: 6 classes, 75 boxes: {", ".join(names[1:6])} and 1 '
        'more',
        f'bin 100_to_1000: 1 classes, 200 boxes: {names[7]}',
        'bin from_1000: 0 classes, 0 boxes',
    ]


def test_accuracy_of_objectness():
    loss = build('BalancedGroupSoftmaxLoss')
    scores = torch.zeros(4, loss.get_cls_channels(C))
    scores[:, -2] = torch.tensor([1.0, -1, 1, -1])
    labels = torch.tensor([0, 0, C, C])
    assert loss.get_accuracy(scores, labels)['acc_objectness'] == 50


# -- balanced group softmax in the settings and variants of its ablation ---

INVERSE = dict(type='InverseClassWeight')
ALL = 1e9
SETTINGS = {
    BalancedGroupSoftmaxLoss: dict(),
    BalancedGroupSoftmaxWithoutOthersLoss: dict(),
    BalancedGroupSoftmaxWithoutBackgroundLoss: dict(),
    ReweightedBalancedGroupSoftmaxLoss: dict(class_weight=INVERSE),
}
each_variant = pytest.mark.parametrize('kind', SETTINGS)
each_with_others = pytest.mark.parametrize(
    'kind',
    [
        kind
        for kind in SETTINGS
        if kind is not BalancedGroupSoftmaxWithoutOthersLoss
    ],
)


def build_variant(kind, instance_count, **changes):
    loss = kind(len(instance_count), **SETTINGS[kind] | changes)
    loss.set_class_statistics(statistics_of(instance_count))
    return loss


def others_counted(loss, labels, label_weights=None):
    """How many rows of others each bin counts, and has of its own."""
    is_counted = loss.row_weights(labels, label_weights) > 0
    is_own = loss.in_bin[labels]
    bins = is_counted[:, : loss.num_bins]
    return (bins & ~is_own).sum(0).tolist(), (bins & is_own).sum(0).tolist()


# -- the variants -----------------------------------------------------------


@each_variant
@given(
    instance_count=st.lists(st.integers(0, 3000), min_size=1, max_size=12),
    bin_edges=st.lists(
        st.integers(1, 3000), min_size=1, max_size=8, unique=True
    ).map(sorted),
    scale=st.sampled_from([0.1, 3.0, 1e4]),
    seed=st.integers(0, 99),
)
@settings(max_examples=30, deadline=None)
def test_any_bins_equal_the_naive_loop(
    kind, instance_count, bin_edges, scale, seed
):
    """Among them are bins without a class, and bins of one."""
    without_others = kind is BalancedGroupSoftmaxWithoutOthersLoss
    ratio = {} if without_others else dict(others_ratio=ALL)
    loss = build_variant(kind, instance_count, bin_edges=bin_edges, **ratio)
    scores = scores_of(loss, 9, seed, scale).requires_grad_()
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, loss.num_classes + 1, (9,), generator=generator)
    label_weights = torch.randint(0, 3, (9,), generator=generator).double()
    rows = scores.tolist()
    weights = label_weights.tolist()
    arguments = (rows, labels.tolist(), instance_count, bin_edges, weights)
    objectness = naive.foreground_terms(
        rows, labels.tolist(), len(instance_count), weights
    )
    if without_others:
        terms = [*naive.own_terms(*arguments), objectness]
        probs = naive.without_others_probs(rows, instance_count, bin_edges)
    elif kind is BalancedGroupSoftmaxWithoutBackgroundLoss:
        terms = naive.group_terms(*arguments)
        probs = naive.without_background_probs(rows, instance_count, bin_edges)
    else:
        own_weights = None
        if kind is ReweightedBalancedGroupSoftmaxLoss:
            own_weights = naive.bin_class_weights(
                instance_count, bin_edges, 'inverse', (0.1, 5.0)
            )
        terms = [*naive.group_terms(*arguments, own_weights), objectness]
        probs = naive.group_probs(rows, instance_count, bin_edges)

    values = loss(scores, labels, label_weights)
    expected = naive.mean_terms(terms)
    names = bin_names(bin_edges)
    if kind is not BalancedGroupSoftmaxWithoutBackgroundLoss:
        names.append('foreground')
    assert list(values) == [f'loss_cls_{name}' for name in names]
    assert [value.item() for value in values.values()] == pytest.approx(
        expected, rel=1e-6, abs=1e-9
    )
    found = loss.get_activation(scores)
    torch.testing.assert_close(found, torch.tensor(probs, dtype=found.dtype))
    (gradient,) = torch.autograd.grad(sum(values.values()), scores)
    assert gradient.isfinite().all()


def test_without_others_one_bin_is_softmax_of_foreground_and_objectness():
    loss = build_variant(
        BalancedGroupSoftmaxWithoutOthersLoss, [3, 4, 5, 6], bin_edges=(10,)
    )
    scores = scores_of(loss, 12, scale=3.0).requires_grad_()
    labels = torch.arange(12) % 5
    is_foreground = labels < 4
    plain = nn.functional.cross_entropy(
        scores[is_foreground, :4], labels[is_foreground]
    ) + nn.functional.cross_entropy(scores[:, 4:], (labels == 4).long())
    value = sum(loss(scores, labels).values())
    torch.testing.assert_close(value, plain)
    torch.testing.assert_close(
        *(torch.autograd.grad(x, scores)[0] for x in (value, plain))
    )


def test_without_others_the_only_class_of_a_bin_learns_nothing():
    loss = build_variant(
        BalancedGroupSoftmaxWithoutOthersLoss, [3, 50, 60], bin_edges=(10,)
    )
    scores = scores_of(loss, 8).requires_grad_()
    labels = torch.tensor([0, 0, 1, 2, 3, 3, 3, 3])
    values = loss(scores, labels)
    assert values['loss_cls_below_10'].item() == 0
    sum(values.values()).backward()
    assert (scores.grad[:, 0] == 0).all()
    p_foreground = scores.detach()[:, 3:].softmax(1)[:, 0]
    torch.testing.assert_close(
        loss.get_activation(scores).detach()[:, 0], p_foreground
    )


def test_without_background_one_bin_is_plain_softmax():
    """Then `others` is background; the upper bin has no class."""
    loss = build_variant(
        BalancedGroupSoftmaxWithoutBackgroundLoss,
        [3, 4, 5, 6],
        bin_edges=(10,),
        others_ratio=ALL,
    )
    scores = scores_of(loss, 12, scale=3.0).requires_grad_()
    labels = torch.arange(12) % 5
    plain = nn.functional.cross_entropy(scores[:, :5], labels)
    value = sum(loss(scores, labels).values())
    torch.testing.assert_close(value, plain)
    torch.testing.assert_close(
        *(torch.autograd.grad(x, scores)[0] for x in (value, plain))
    )
    torch.testing.assert_close(
        loss.get_activation(scores), scores[:, :5].softmax(1)
    )


def test_accuracy_has_objectness_where_there_is_a_background_group():
    for kind in SETTINGS:
        loss = build_variant(kind, [3, 50, 60])
        accuracy = loss.get_accuracy(scores_of(loss, 4), torch.arange(4))
        expected = {'acc_classes', 'acc_objectness'}
        if kind is BalancedGroupSoftmaxWithoutBackgroundLoss:
            expected.remove('acc_objectness')
        assert set(accuracy) == expected


def test_equal_class_weights_change_nothing():
    counts = [3, 4, 50, 60, 700]
    plain = build_variant(BalancedGroupSoftmaxLoss, counts, others_ratio=ALL)
    equal = build_variant(
        ReweightedBalancedGroupSoftmaxLoss,
        counts,
        class_weight=dict(type='EffectiveNumberClassWeight', beta=0.0),
        others_ratio=ALL,
    )
    scores, labels = scores_of(plain, 12), torch.arange(12) % 6
    torch.testing.assert_close(equal(scores, labels), plain(scores, labels))


@pytest.mark.parametrize(
    'weight_range, weights',
    [
        ((0.45, 1.55), [9 / 7, 0.45, 1.55, 0.45, 9 / 7]),
        (None, [9 / 7, 3 / 7, 1.6, 0.4, 9 / 7]),
    ],
)
def test_class_weights_are_relative_to_the_bin_and_clipped(
    weight_range, weights
):
    """1 / n over its mean in the bin: 1.5 and 0.5, then 1.6 and 0.4."""
    loss = build_variant(
        ReweightedBalancedGroupSoftmaxLoss,
        [1, 3, 20, 80, 0, 500],
        weight_range=weight_range,
        others_ratio=1e9,
    )
    # below 10 the counts are 1, 3 and 0, which is taken for 1
    expected = np.ones((7, 5))
    expected[range(5), [0, 0, 1, 1, 0]] = weights
    expected[:, 3] = 0  # no row of this bin, so no others
    found = loss.row_weights(torch.arange(7), None)
    assert found.numpy() == pytest.approx(expected)


def test_the_normaliser_is_the_weighted_sum():
    """0.5 and 1.5 are the weights of the two classes of the lower bin."""
    loss = build_variant(
        ReweightedBalancedGroupSoftmaxLoss, [1, 3, 50], others_ratio=0.0
    )
    scores = scores_of(loss, 4)
    labels = torch.tensor([0, 0, 1, 3])
    values = loss(scores, labels)
    lower = scores[:3, [0, 1, 3]]
    ce = nn.functional.cross_entropy(lower, labels[:3], reduction='none')
    expected = (1.5 * ce[0] + 1.5 * ce[1] + 0.5 * ce[2]) / 3.5
    torch.testing.assert_close(
        values['loss_cls_below_10'], expected, rtol=1e-6, atol=0
    )


@each_variant
def test_checkpoint_of_other_bins_is_an_error(kind):
    counts = [3, 50, 60, 700]
    state = build_variant(kind, counts).state_dict()
    same = kind(4, **SETTINGS[kind])
    same.load_state_dict(state)
    assert same.bin_index.tolist() == [0, 1, 1, 2]
    scores = scores_of(same, 6)
    torch.testing.assert_close(
        same.get_activation(scores),
        build_variant(kind, counts).get_activation(scores),
    )
    other = kind(4, bin_edges=(10, 40, 1000), **SETTINGS[kind])
    words = rf'{kind.__name__}: bin_edges is .* with \(10.0, 100.0, 1000.0\)'
    with pytest.raises(LongTailError, match=words):
        other.load_state_dict(state)


@each_variant
def test_bad_bins_name_the_variant(kind):
    with pytest.raises(LongTailError, match=f'{kind.__name__}: bin_edges'):
        kind(4, bin_edges=(10, 5), **SETTINGS[kind])


@each_variant
def test_sampling_by_the_loss_of_a_row_is_refused(kind, tmp_path):
    config = Config.fromfile(write_config(tmp_path / 'config.py', tmp_path))
    config.model.train_cfg.rcnn.sampler.type = 'OHEMSampler'
    config.model.roi_head.bbox_head.loss_cls = dict(
        type=kind.__name__, num_classes=4, **SETTINGS[kind]
    )
    init_default_scope('mmdet')
    model = MODELS.build(config.model)
    words = f'OHEMSampler .* which {kind.__name__} does not have'
    with pytest.raises(LongTailError, match=words):
        check_head_support(model)


@each_with_others
@pytest.mark.parametrize('others_ratio', [-1, float('nan')])
def test_bad_others_ratio_names_the_variant(kind, others_ratio):
    words = f'{kind.__name__}: others_ratio is {others_ratio}'
    with pytest.raises(LongTailError, match=words):
        kind(4, others_ratio=others_ratio, **SETTINGS[kind])


# -- others_ratio -----------------------------------------------------------


@each_with_others
@pytest.mark.parametrize(
    'others_ratio, drawn', [(0.5, 0), (1, 1), (3, 3), (8, 8), (ALL, 997)]
)
def test_a_bin_with_one_row_draws_the_whole_part_of_beta(
    kind, others_ratio, drawn
):
    loss = build_variant(kind, [3, 50, 60, 700], others_ratio=others_ratio)
    labels = torch.full((998,), 4)
    labels[7] = 0
    found, own = others_counted(loss, labels)
    assert found == [drawn, 0, 0, 0] and own == [1, 0, 0, 0]


@pytest.mark.parametrize(
    'others_ratio, drawn', [(0.5, 1), (1, 3), (3, 9), (8, 24), (ALL, 3000)]
)
def test_betas_of_the_ablation(others_ratio, drawn):
    loss = build_variant(
        BalancedGroupSoftmaxLoss, [3, 50, 60, 700], others_ratio=others_ratio
    )
    labels = torch.full((3003,), 4)
    labels[:3] = torch.tensor([1, 2, 1])
    assert others_counted(loss, labels) == ([0, drawn, 0, 0], [0, 3, 0, 0])


# -- bins of the ablation ---------------------------------------------------

BINS = {
    2: (100,),
    4: (10, 100, 1000),
    8: (5, 10, 50, 100, 500, 1000, 5000),
}
SIZES = {
    ('v0.5', 2): [747, 483],
    ('v0.5', 4): [294, 453, 302, 181],
    ('v0.5', 8): [178, 116, 327, 126, 224, 78, 156, 25],
    ('v1', 2): [612, 591],
    ('v1', 4): [200, 412, 334, 257],
    ('v1', 8): [128, 72, 280, 132, 251, 83, 184, 73],
}


@each_variant
@pytest.mark.parametrize('version, num_bins', SIZES)
def test_bins_of_lvis(kind, version, num_bins):
    loss = build_variant(kind, lvis_counts(version), bin_edges=BINS[num_bins])
    sizes = np.bincount(loss.bin_index.numpy()).tolist()
    assert sizes == SIZES[version, num_bins]
    scores = scores_of(loss, 16).requires_grad_()
    labels = torch.linspace(0, loss.num_classes, 16).long()
    sum(loss(scores, labels).values()).backward()
    assert scores.grad.isfinite().all()


def test_bins_of_millions_have_names_of_their_own():
    edges = (1_234_567, 1_234_568, 1_234_569)
    assert len(set(bin_names(edges))) == 4
    assert bin_names((0.5, 10, 8000.0)) == [
        'below_0.5',
        '0.5_to_10',
        '10_to_8000',
        'from_8000',
    ]
    loss = build_variant(
        BalancedGroupSoftmaxLoss, [5, 1_234_568], bin_edges=edges
    )
    assert len(loss(scores_of(loss, 3), torch.arange(3))) == 5


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=30))
@settings(max_examples=30, deadline=None)
def test_suggested_bins_train(instance_count):
    edges = suggest_bin_edges(statistics_of(instance_count)).value
    loss = build_variant(
        BalancedGroupSoftmaxLoss, instance_count, bin_edges=edges
    )
    scores = scores_of(loss, 8).requires_grad_()
    labels = torch.arange(8) % (loss.num_classes + 1)
    sum(loss(scores, labels).values()).backward()
    assert scores.grad.isfinite().all()


def test_variants_are_registered_and_say_their_settings():
    for kind in SETTINGS:
        loss = MODELS.build(
            dict(type=kind.__name__, num_classes=4, **SETTINGS[kind])
        )
        assert type(loss) is kind
        assert 'bin_edges=(10, 100, 1000)' in repr(loss)
    assert 'others_ratio=6.0' in repr(loss)
    assert 'weight_range=(0.1, 5.0)' in repr(loss)

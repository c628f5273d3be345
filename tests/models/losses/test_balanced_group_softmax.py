"""Balanced Group Softmax (BAGS)."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_cases import build
from loss_contract import C, labels_of, scores_of, statistics_of, total
from torch import nn

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.losses import (
    BalancedGroupSoftmaxLoss,
    sample_others,
)
from mmdet_longtail.structures import ClassStatistics


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


def test_accuracy_of_objectness():
    loss = build('BalancedGroupSoftmaxLoss')
    scores = torch.zeros(4, loss.get_cls_channels(C))
    scores[:, -2] = torch.tensor([1.0, -1, 1, -1])
    labels = torch.tensor([0, 0, C, C])
    assert loss.get_accuracy(scores, labels)['acc_objectness'] == 50

"""The registered losses in the contract, each with its naive reference."""

from __future__ import annotations

import naive
import torch
from loss_contract import INSTANCE_COUNT, C, Case, statistics_of
from mmdet.registry import MODELS


def equalization(loss, scores, labels):
    T = loss.tail_weight.tolist()
    return naive.equalization(scores, labels, T, loss.prior_logit)


def softmax_equalization(loss, scores, labels):
    is_tail = [T == 1 for T in loss.tail_weight.tolist()]
    return naive.softmax_equalization(
        scores, labels, C, [is_tail] * len(labels)
    )


def cross_entropy(loss, scores, labels):
    return naive.weighted_cross_entropy(scores, labels, [1.0] * (C + 1))


def reweighted(loss, scores, labels):
    weights = naive.class_weights(INSTANCE_COUNT, 'effective number', 0.9)
    return naive.weighted_cross_entropy(scores, labels, single(weights))


def focal(loss, scores, labels):
    return naive.focal(
        scores, labels, loss.gamma, loss.alpha, loss.prior_logit
    )


def group_softmax(loss, scores, labels):
    terms = naive.group_terms(scores, labels, INSTANCE_COUNT, loss.bin_edges)
    return sum_terms([*terms, naive.foreground_terms(scores, labels, C)])


def without_others(loss, scores, labels):
    terms = naive.own_terms(scores, labels, INSTANCE_COUNT, loss.bin_edges)
    return sum_terms([*terms, naive.foreground_terms(scores, labels, C)])


def without_background(loss, scores, labels):
    return sum_terms(
        naive.group_terms(scores, labels, INSTANCE_COUNT, loss.bin_edges)
    )


def reweighted_group_softmax(loss, scores, labels):
    weights = naive.bin_class_weights(
        INSTANCE_COUNT, loss.bin_edges, 'inverse', (0.1, 5.0)
    )
    terms = naive.group_terms(
        scores,
        labels,
        INSTANCE_COUNT,
        loss.bin_edges,
        own_weights=single(weights),
    )
    return sum_terms([*terms, naive.foreground_terms(scores, labels, C)])


def single(values):
    """Values in single precision, as the buffers of a loss have them."""
    return torch.tensor(values).tolist()


def sum_terms(terms):
    """Each row's loss in each group times its weight there, summed."""
    return [
        sum(weight * value for weight, value in row) for row in zip(*terms)
    ]


CASES = {
    'EqualizationLoss': Case(equalization, dict(frequency_threshold=0.05)),
    'DenseEqualizationLoss': Case(
        equalization, dict(use_sigmoid=True, frequency_threshold=0.05)
    ),
    'SoftmaxEqualizationLoss': Case(
        softmax_equalization,
        dict(frequency_threshold=0.05, ignore_probability=1.0),
    ),
    'SoftmaxEqualizationClassificationLoss': Case(
        softmax_equalization,
        dict(frequency_threshold=0.05, ignore_probability=1.0),
    ),
    'ReweightedSoftmaxLoss': Case(
        reweighted,
        dict(class_weight=dict(type='EffectiveNumberClassWeight', beta=0.9)),
    ),
    'RoIFocalLoss': Case(focal),
    'TauNormSelectLoss': Case(cross_entropy),
    'BalancedGroupSoftmaxLoss': Case(group_softmax, dict(others_ratio=1e9)),
    # The only class of a bin would win every RoI.
    'BalancedGroupSoftmaxWithoutOthersLoss': Case(
        without_others, dict(bin_edges=(10, 100)), has_equal_rows=False
    ),
    'BalancedGroupSoftmaxWithoutBackgroundLoss': Case(
        without_background, dict(others_ratio=1e9)
    ),
    'ReweightedBalancedGroupSoftmaxLoss': Case(
        reweighted_group_softmax,
        dict(others_ratio=1e9, class_weight=dict(type='InverseClassWeight')),
        has_equal_rows=False,
    ),
}


def build(name, statistics=None, **changes):
    """Build a loss with the settings of its case, and set its statistics."""
    settings = CASES[name].settings | changes
    loss = MODELS.build(dict(type=name, num_classes=C, **settings))
    loss.set_class_statistics(statistics or statistics_of(INSTANCE_COUNT))
    return loss

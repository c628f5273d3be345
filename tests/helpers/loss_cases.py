"""The registered losses in the contract, each with its naive reference."""

from __future__ import annotations

import naive
import torch
import torch.nn.functional as F
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


def federated(loss, scores, labels):
    """With K above C: the classes of the batch and those with images."""
    counted = [n > 0 or c in labels for c, n in enumerate(INSTANCE_COUNT)]
    if not hasattr(loss, 'sampling_weight'):
        counted = [True] * C
    return naive.weighted_sigmoid(
        scores, labels, [counted] * len(labels), loss.prior_logit
    )


def drop(loss, scores, labels):
    """With all classes tail, background drops nothing at random."""
    random = [[0.5] * C] * len(labels)
    weights = naive.drop_weights(labels, [True] * C, random)
    if loss.column_blocks == ('gumbels',):
        return naive.weighted_gumbel(scores, labels, weights, loss.prior_logit)
    return naive.weighted_sigmoid(scores, labels, weights, loss.prior_logit)


def gumbel_equalization(loss, scores, labels):
    T = loss.tail_weight.tolist()
    weights = naive.equalization_weights(labels, T)
    return naive.weighted_gumbel(scores, labels, weights, loss.prior_logit)


def equalized_focal(loss, scores, labels):
    return naive.equalized_focal(
        scores, labels, loss.pos_neg.tolist(), alpha=loss.alpha
    )


def ratio_of(loss, count):
    """A state of EFL, in which rare classes are pushed down."""
    return dict(
        pos_grad=count,
        neg_grad=count + 50,
        pos_neg=count / (count + 50),
    )


def focal(loss, scores, labels):
    return naive.focal(
        scores, labels, loss.gamma, loss.alpha, loss.prior_logit
    )


def equalization_v2(loss, scores, labels):
    ratio = loss.pos_neg.tolist()
    settings = (loss.gamma, loss.mu, loss.alpha, loss.prior_logit)
    return naive.equalization_v2(scores, labels, ratio, *settings)[0]


def gradients_of(loss, count):
    pos_grad, neg_grad = count, 0.8 * count + 20
    ratio = pos_grad / neg_grad
    return dict(pos_grad=pos_grad, neg_grad=neg_grad, pos_neg=ratio)


def seesaw(loss, scores, labels):
    counts = loss.cum_samples.tolist()[:C]
    terms = naive.seesaw(scores, labels, counts, loss.p, loss.q, loss.eps)
    return [sum(row) for row in zip(*terms)]


def balanced_softmax(loss, scores, labels):
    counts = [max(n, 1) for n in INSTANCE_COUNT]
    weights = [n / (sum(counts) / C) for n in counts] + [1.0]
    return naive.weighted_softmax(scores, labels, weights)


def equilibrium(loss, scores, labels):
    return naive.weighted_softmax(scores, labels, loss.mean_score.tolist())


def effective_class_margin(loss, scores, labels):
    image_count = statistics_of(INSTANCE_COUNT).image_count.tolist()
    return naive.effective_class_margin(
        scores, labels, image_count, loss.background_ratio
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
    'FederatedLoss': Case(federated),
    'DenseFederatedLoss': Case(federated, dict(use_sigmoid=True)),
    'VerifiedFederatedLoss': Case(federated),
    'DropLoss': Case(drop, dict(frequency_threshold=1.0)),
    'GumbelDropLoss': Case(drop, dict(frequency_threshold=1.0)),
    'GumbelEqualizationLoss': Case(
        gumbel_equalization, dict(frequency_threshold=0.05)
    ),
    'ReweightedSoftmaxLoss': Case(
        reweighted,
        dict(class_weight=dict(type='EffectiveNumberClassWeight', beta=0.9)),
    ),
    'RoIFocalLoss': Case(focal),
    'EqualizedFocalLoss': Case(
        equalized_focal, dict(use_sigmoid=True), online_state=ratio_of
    ),
    'EqualizedQualityFocalLoss': Case(
        equalized_focal, dict(use_sigmoid=True), online_state=ratio_of
    ),
    'EqualizationLossV2': Case(equalization_v2, online_state=gradients_of),
    'SyncSeesawLoss': Case(
        seesaw,
        has_equal_rows=False,
        gradient_settings=dict(q=0.0),
        online_state=lambda loss, count: dict(
            cum_samples=F.pad(count, (0, 1), value=9000.0)
        ),
    ),
    'BalancedSoftmaxLoss': Case(balanced_softmax),
    'EquilibriumLoss': Case(
        equilibrium,
        online_state=lambda loss, count: dict(
            mean_score=F.pad((count + 1) / (count + 50), (0, 1), value=0.01)
        ),
    ),
    'EffectiveClassMarginLoss': Case(effective_class_margin),
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
    """Build a loss with the settings and the state of its case, to train."""
    settings = CASES[name].settings | changes
    loss = MODELS.build(dict(type=name, num_classes=C, **settings))
    loss.set_class_statistics(statistics or statistics_of(INSTANCE_COUNT))
    CASES[name].prepare(loss)
    return loss

"""Calibrations: the equations applied to the probabilities of each loss."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.models.layers import NormedLinear
from mmdet.registry import MODELS
from naive import softmax
from torch import nn

from mmdet_longtail.apis.calibrate import _Classifier
from mmdet_longtail.models.losses import LongTailLoss
from mmdet_longtail.models.utils.bbox_heads import predicted_probs
from mmdet_longtail.models.utils.calibration import (
    fracal,
    logit_adjustment,
    logn,
    norcal,
    tau_norm,
)
from mmdet_longtail.structures.class_statistics import ClassStatistics

C = 5
N = 40
IMAGE_COUNT = [900, 60, 7, 1, 0]
INSTANCE_COUNT = [2500, 90, 7, 2, 0]
NUM_IMAGES = 1000
DIMENSION = [1.9, 1.4, 1.0, 1.0, 1.0]
BIN_INDEX = [1, 1, 0, 0, 0]
BIN_EDGES = (10,)
STATISTICS = ClassStatistics(
    tuple('abcde'), IMAGE_COUNT, INSTANCE_COUNT, NUM_IMAGES, 950
)


def randn(*shape, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(
        *shape, generator=generator, dtype=torch.float64
    )


# -- factors a_c of e^z_c, by the equations of the papers ------------------


def norcal_factor(c, strength):
    return max(IMAGE_COUNT[c], 1) ** -strength


def logit_adjustment_factor(c, strength):
    counts = [max(n, 1) for n in INSTANCE_COUNT]
    prior = counts[c] / sum(counts)
    return (C * prior) ** -strength


def fracal_factor(c, strength):
    f = max(IMAGE_COUNT[c], 1) / NUM_IMAGES
    offset = -math.log10(f) - math.log10(C)
    return (math.exp(offset) / DIMENSION[c] ** 2) ** strength


FACTORS = {
    'norcal': norcal_factor,
    'logit-adjustment': logit_adjustment_factor,
    'fracal': fracal_factor,
}


def calibration(method, strength):
    if method == 'norcal':
        return norcal(torch.tensor(IMAGE_COUNT), strength)
    if method == 'logit-adjustment':
        return logit_adjustment(torch.tensor(INSTANCE_COUNT), strength)
    f = torch.tensor(IMAGE_COUNT).double().clamp(min=1) / NUM_IMAGES
    return fracal(f, torch.tensor(DIMENSION, dtype=torch.float64), strength)


# -- what the factors do to the probabilities of each loss -----------------


def of_a_softmax(p, a):
    """p_c a_c, normalized with background, whose factor is 1."""
    products = [x * factor for x, factor in zip(p, [*a, 1.0])]
    return [x / sum(products) for x in products]


def of_sigmoids(p, a):
    """Each class against its own background."""
    q = [x * f / (x * f + 1 - x) for x, f in zip(p, a)]
    return [*q, p[-1]]


def of_sigmoids_with_background(p, a):
    """The same for the class's own sigmoid, times 1 - p_bg."""
    rest = 1 - p[-1]
    q = of_sigmoids([x / rest for x in p[:-1]] + [p[-1]], a)
    return [x * rest for x in q[:-1]] + [p[-1]]


def of_seesaw(p, a):
    """The classes share out what background leaves, which stays."""
    products = [x * factor for x, factor in zip(p, a)]
    return [x / sum(products) * (1 - p[-1]) for x in products] + [p[-1]]


def of_bins(p, a):
    """In each bin, others is what remains of it, with the factor 1."""
    found = [0.0] * C + [p[-1]]
    for g in set(BIN_INDEX):
        own = [c for c in range(C) if BIN_INDEX[c] == g]
        in_bin = [p[c] / (1 - p[-1]) for c in own]
        products = [x * a[c] for x, c in zip(in_bin, own)]
        others = 1 - sum(in_bin)
        for x, c in zip(products, own):
            found[c] = x / (sum(products) + others) * (1 - p[-1])
    return found


def registered(type, **arguments):
    return lambda: MODELS.build(dict(type=type, **arguments))


LOSSES = {
    'softmax': (registered('CrossEntropyLoss'), C + 1, of_a_softmax),
    'seql': (
        registered('SoftmaxEqualizationLoss', num_classes=C),
        C + 1,
        of_a_softmax,
    ),
    # mmdet's bbox head predicts by a softmax with it.
    'mmdet-eqlv2': (
        registered('EQLV2Loss', num_classes=C),
        C + 1,
        of_a_softmax,
    ),
    'eql': (registered('EqualizationLoss', num_classes=C), C, of_sigmoids),
    'focal': (registered('RoIFocalLoss', num_classes=C), C, of_sigmoids),
    'eqlv2': (
        registered('EqualizationLossV2', num_classes=C),
        C + 1,
        of_sigmoids_with_background,
    ),
    'ecm': (
        registered('EffectiveClassMarginLoss', num_classes=C),
        C + 1,
        of_sigmoids_with_background,
    ),
    'ebl': (
        registered('EquilibriumLoss', num_classes=C),
        C + 1,
        of_a_softmax,
    ),
    'seesaw': (registered('SeesawLoss', num_classes=C), C + 2, of_seesaw),
    'sync-seesaw': (
        registered('SyncSeesawLoss', num_classes=C),
        C + 2,
        of_seesaw,
    ),
    'bags': (
        registered(
            'BalancedGroupSoftmaxLoss', num_classes=C, bin_edges=BIN_EDGES
        ),
        C + 2 + 2,
        of_bins,
    ),
}


class Head(nn.Module):
    """A bbox head's classifier and loss, in float64."""

    def __init__(self, loss, num_columns, layer=nn.Linear, **settings):
        super().__init__()
        torch.manual_seed(0)
        self.num_classes = C
        self.loss_cls = loss()
        self.fc_cls = layer(8, num_columns, **settings).double()
        nn.init.normal_(self.fc_cls.weight)
        if self.fc_cls.bias is not None:
            nn.init.normal_(self.fc_cls.bias)
        if isinstance(self.loss_cls, LongTailLoss):
            self.loss_cls.set_class_statistics(STATISTICS)
        self.requires_grad_(False).eval()

    def probs(self, x):
        return predicted_probs(self, self.fc_cls(x))


SIGMOIDS = (of_sigmoids, of_sigmoids_with_background)


@pytest.mark.parametrize(
    ('loss', 'method'),
    [
        (loss, method)
        for loss, (*_, effect) in LOSSES.items()
        for method in FACTORS
        if method != 'fracal' or effect not in SIGMOIDS
    ],
)
@pytest.mark.parametrize('strength', [0.3, 1.0])
def test_probabilities_are_those_of_the_equation(loss, method, strength):
    build, num_columns, effect = LOSSES[loss]
    head, x = Head(build, num_columns), randn(N, 8)
    before = head.probs(x)
    _Classifier(head).set(calibration(method, strength))
    a = [FACTORS[method](c, strength) for c in range(C)]
    columns = C if effect is of_sigmoids else C + 1
    expected = [effect([*p], a) for p in pad(before).tolist()]
    expected = torch.tensor(expected, dtype=torch.float64)[:, :columns]
    found = pad(head.probs(x))[:, :columns]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    assert (found - before[:, :columns]).abs().max() > 0.01


def pad(probs):
    """Probabilities (N, C + 1), also of losses without background."""
    return torch.nn.functional.pad(probs, (0, C + 1 - probs.size(1)))


@pytest.mark.parametrize('loss', LOSSES)
def test_logn_is_the_naive_loop(loss):
    build, num_columns, _ = LOSSES[loss]
    head, x = Head(build, num_columns), randn(N, 8)
    p = head.loss_cls.prior_logit if loss in ('eql', 'focal', 'eqlv2') else 0.0
    z = head.fc_cls(x)[:, :C] + p
    mean, variance = z.mean(0) + 1, z.var(0) * 4
    variance[2] = 0
    others = head.fc_cls(x)[:, C:]
    _Classifier(head).set(logn(mean, variance, 1.0))
    beta = min(mean.tolist())
    expected = [
        [
            (z[n, c] - (mean[c] - beta)) / max(variance[c], 1e-11) ** 0.5
            for c in range(C)
        ]
        for n in range(N)
    ]
    found = head.fc_cls(x)
    torch.testing.assert_close(
        found[:, :C] + p,
        torch.tensor(expected, dtype=torch.float64),
        rtol=1e-9,
        atol=1e-9,
    )
    assert torch.equal(found[:, C:], others)


def test_tau_norm_keeps_the_bias():
    head = Head(registered('CrossEntropyLoss'), C + 1)
    w, b = head.fc_cls.weight.clone(), head.fc_cls.bias.clone()
    _Classifier(head).set(tau_norm(w[:C], b[:C], 1.0))
    torch.testing.assert_close(
        head.fc_cls.weight[:C].norm(dim=1),
        w[:C].norm(dim=1).mean().expand(C),
    )
    torch.testing.assert_close(head.fc_cls.bias, b)


@pytest.mark.parametrize('loss', LOSSES)
@pytest.mark.parametrize('method', [*FACTORS, 'logn', 'tau-norm'])
def test_strength_0_changes_no_bit(loss, method):
    build, num_columns, _ = LOSSES[loss]
    head = Head(build, num_columns).float()
    before = {k: v.clone() for k, v in head.state_dict().items()}
    classifier = _Classifier(head)
    found = {
        'logn': lambda: logn(randn(C), randn(C).exp(), 0.0),
        'tau-norm': lambda: tau_norm(classifier.weight, classifier.bias, 0.0),
    }.get(method, lambda: calibration(method, 0.0))()
    classifier.set(found)
    for name, value in head.state_dict().items():
        assert torch.equal(value, before[name]), name


@given(seed=st.integers(0, 2**16), strength=st.floats(0, 3))
@settings(max_examples=30, deadline=None)
def test_permuted_classes_are_calibrated_alike(seed, strength):
    rng = np.random.default_rng(seed)
    order = rng.permutation(C)
    images = torch.tensor(rng.integers(0, 10**6, C))
    f = images.clamp(min=1) / 10**6
    D = torch.tensor(rng.uniform(1, 2, C))
    mean, variance = torch.tensor(rng.normal(size=(2, C)))
    for method, counts in (
        (norcal, [images]),
        (logit_adjustment, [images]),
        (fracal, [f, D]),
        (logn, [mean, variance.abs()]),
    ):
        found = method(*counts, strength)
        permuted = method(*(count[order] for count in counts), strength)
        for x, y in zip(found, permuted):
            torch.testing.assert_close(x[order], y)
            assert x.isfinite().all()


def test_equal_counts_need_no_adjustment():
    counts = torch.full((C,), 17)
    assert logit_adjustment(counts, 0.7).shift.abs().max() < 1e-12
    found = norcal(counts, 0.7).shift
    torch.testing.assert_close(found, found[:1].expand(C))


def test_ranks_within_a_class_stay_for_sigmoids_only():
    x = randn(N, 8)
    for loss, is_kept in (('eql', True), ('softmax', False)):
        build, num_columns, _ = LOSSES[loss]
        head = Head(build, num_columns)
        before = head.probs(x)[:, :C].argsort(0)
        _Classifier(head).set(calibration('norcal', 1.0))
        same = torch.equal(head.probs(x)[:, :C].argsort(0), before)
        assert same == is_kept


@pytest.mark.parametrize('background', [-1e4, 1e4])
def test_extreme_logits_give_probabilities(background):
    head = Head(registered('CrossEntropyLoss'), C + 1)
    head.fc_cls.bias[-1] = background
    _Classifier(head).set(calibration('fracal', 1.0))
    probs = head.probs(randn(N, 8, scale=1e3))
    assert probs.isfinite().all()
    torch.testing.assert_close(probs.sum(1), torch.ones(N).double())


def test_a_normed_linear_takes_shifts_in_its_bias():
    head = Head(registered('CrossEntropyLoss'), C + 1, NormedLinear)
    x = randn(N, 8)
    before = head.fc_cls(x)
    found = calibration('norcal', 0.5)
    _Classifier(head).set(found)
    after = head.fc_cls(x)
    torch.testing.assert_close(after[:, :C], before[:, :C] + found.shift)
    assert torch.equal(after[:, C:], before[:, C:])


@pytest.mark.parametrize('bias', [True, False])
def test_a_scaled_normed_linear_takes_scales(bias):
    def build(*sizes, **settings):
        config = dict(type='ScaledNormedLinear', in_features=sizes[0])
        return MODELS.build(config | dict(out_features=sizes[1]) | settings)

    head = Head(registered('CrossEntropyLoss'), C + 1, build, bias=bias)
    plain = NormedLinear(8, C + 1, bias=bias).double()
    plain.load_state_dict(
        {k: v for k, v in head.fc_cls.state_dict().items() if k != 'scale'}
    )
    x = randn(N, 8)
    torch.testing.assert_close(head.fc_cls(x), plain(x))
    mean, variance = randn(C), randn(C, seed=1).exp()
    if not bias:
        s = torch.arange(1.0, C + 2).double()
        head.fc_cls.scale.copy_(s)
        torch.testing.assert_close(head.fc_cls(x), s * plain(x))
        return
    found = logn(mean, variance, 0.5)
    _Classifier(head).set(found)
    torch.testing.assert_close(
        head.fc_cls(x)[:, :C],
        found.scale * plain(x)[:, :C] + found.shift,
    )
    torch.testing.assert_close(head.fc_cls(x)[:, C:], plain(x)[:, C:])


def test_norcal_of_one_row_by_hand():
    # Two classes of 100 and 1 images, equally probable, gamma 1/2.
    shift = norcal(torch.tensor([100, 1]), 0.5).shift
    z = [math.log(0.4), math.log(0.4), math.log(0.2)]
    found = softmax([z[0] + shift[0].item(), z[1] + shift[1].item(), z[2]])
    assert found == pytest.approx([0.04 / 0.64, 0.4 / 0.64, 0.2 / 0.64])

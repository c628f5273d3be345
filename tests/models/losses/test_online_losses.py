"""Losses with online state, in training: naive loops over three steps."""

from __future__ import annotations

from types import SimpleNamespace

import naive
import pytest
import torch
from loss_contract import C, total
from mmdet.models.losses import SeesawLoss
from mmdet.registry import MODELS
from ranks import run_on_two_ranks
from torch import nn

from mmdet_longtail.engine.hooks import OnlineStateHook

STEPS = 3


def equalization_v2(loss, state, scores, labels):
    settings = (loss.gamma, loss.mu, loss.alpha, loss.prior_logit)
    rows, *gradients = naive.equalization_v2(
        scores, labels, state['pos_neg'], *settings
    )
    totals = [
        [old + more for old, more in zip(state[name], gradient)]
        for name, gradient in zip(('pos_grad', 'neg_grad'), gradients)
    ]
    ratio = [up / (down + 1e-10) for up, down in zip(*totals)]
    return rows, dict(pos_grad=totals[0], neg_grad=totals[1], pos_neg=ratio)


def seesaw(loss, state, scores, labels):
    counts = [
        n + labels.count(label) for label, n in enumerate(state['cum_samples'])
    ]
    terms = naive.seesaw(scores, labels, counts[:C], loss.p, loss.q, loss.eps)
    return [sum(row) for row in zip(*terms)], dict(cum_samples=counts)


def equilibrium(loss, state, scores, labels):
    moved = naive.mean_scores(
        scores, labels, state['mean_score'], loss.momentum
    )
    rows = naive.weighted_softmax(scores, labels, moved)
    return rows, dict(mean_score=moved)


STEP_OF = {
    'EqualizationLossV2': equalization_v2,
    'SyncSeesawLoss': seesaw,
    'EquilibriumLoss': equilibrium,
}
START = {
    'EqualizationLossV2': dict(
        pos_grad=[0.0] * C, neg_grad=[0.0] * C, pos_neg=[100.0] * C
    ),
    'SyncSeesawLoss': dict(cum_samples=[0.0] * (C + 1)),
    'EquilibriumLoss': dict(mean_score=[0.01] * (C + 1)),
}


def build(name, **settings):
    return MODELS.build(dict(type=name, num_classes=C, **settings))


def rows_of(loss, step, number=40):
    """Labels of a long tail; not each class is in each batch."""
    generator = torch.Generator().manual_seed(step)
    width = loss.get_cls_channels(C)
    scores = torch.randn(number, width, generator=generator).double()
    share = torch.tensor([0.5**c for c in range(C)] + [1.0])
    labels = share.multinomial(number, True, generator=generator)
    return 3 * scores, labels


@pytest.mark.parametrize('prior_prob', [None, 0.001])
@pytest.mark.parametrize('name', STEP_OF)
def test_three_steps_equal_the_naive_loop(name, prior_prob):
    has_prior = name == 'EqualizationLossV2'
    loss = build(name, **({'prior_prob': prior_prob} if has_prior else {}))
    state = START[name]
    for step in range(STEPS):
        scores, labels = rows_of(loss, step)
        found = total(loss(scores, labels, reduction_override='none'))
        rows, state = STEP_OF[name](
            loss, state, scores.tolist(), labels.tolist()
        )
        expected = torch.tensor(rows, dtype=torch.float64)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        for key, value in loss.online_state().items():
            expected = torch.tensor(state[key], dtype=torch.float64)
            torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('name', STEP_OF)
@pytest.mark.parametrize('dtype', [torch.float16, torch.float32])
def test_extreme_scores_leave_a_finite_state(name, dtype):
    loss = build(name)
    for step in range(STEPS):
        scores, labels = rows_of(loss, step)
        scores = (scores.sign() * 1e4).to(dtype).requires_grad_()
        value = total(loss(scores, labels))
        value.backward()
        assert value.isfinite() and scores.grad.isfinite().all()
        for state in loss.online_state().values():
            assert state.isfinite().all()


def has_rois(rank, step):
    return (rank, step) != (1, 1)


def keep_states(rank, folder):
    model = nn.ModuleDict({name: build(name) for name in STEP_OF})
    hook, runner = OnlineStateHook(), SimpleNamespace(model=model)
    hook.before_train(runner)
    for step in range(STEPS):
        hook.before_train_iter(runner, 0)
        for loss in model.values() if has_rois(rank, step) else ():
            loss(*rows_of(loss, 2 * step + rank))
        hook.after_train_iter(runner, 0)
    for name, loss in model.items():
        torch.save(loss.state_dict(), f'{folder}/{name}_{rank}.pth')


@pytest.fixture(scope='module')
def of_two_ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp('ranks')
    run_on_two_ranks(keep_states, str(folder))
    return folder


@pytest.mark.parametrize('name', STEP_OF)
def test_two_ranks_equal_one_with_the_big_batch(name, of_two_ranks):
    one, other = (
        torch.load(of_two_ranks / f'{name}_{rank}.pth', weights_only=True)
        for rank in (0, 1)
    )
    loss = build(name)
    for step in range(STEPS):
        rows = [
            rows_of(loss, 2 * step + rank)
            for rank in (0, 1)
            if has_rois(rank, step)
        ]
        loss(*map(torch.cat, zip(*rows)))
    for key, value in loss.state_dict().items():
        assert torch.equal(one[key], other[key])
        torch.testing.assert_close(one[key], value, rtol=1e-12, atol=1e-12)


# -- against mmdet's ---------------------------------------------------------


@pytest.mark.parametrize(
    'call',
    [{}, dict(avg_factor=33.0), dict(reduction_override='sum')],
    ids=['mean', 'avg_factor', 'sum'],
)
@pytest.mark.parametrize('rows', ['mixed', 'foreground', 'background'])
def test_seesaw_equals_that_of_mmdet_over_three_steps(call, rows):
    loss, other = build('SyncSeesawLoss'), SeesawLoss(num_classes=C).double()
    for step in range(STEPS):
        scores, labels = rows_of(loss, step)
        if rows != 'mixed':
            labels = labels % C if rows == 'foreground' else labels * 0 + C
        weights = torch.linspace(0, 2, len(labels), dtype=torch.float64)
        found, expected = (
            each(scores.requires_grad_(), labels, weights, **call)
            for each in (loss, other)
        )
        assert found.keys() == expected.keys()
        for key, value in found.items():
            torch.testing.assert_close(value, expected[key], rtol=1e-6, atol=0)
        torch.testing.assert_close(
            *(
                torch.autograd.grad(total(each), scores)[0]
                for each in (found, expected)
            ),
            rtol=1e-5,
            atol=1e-9,
        )
        assert torch.equal(loss.cum_samples, other.cum_samples)
    torch.testing.assert_close(
        loss.get_activation(scores), other.get_activation(scores)
    )


def test_seesaw_loads_the_checkpoints_of_mmdet():
    other = SeesawLoss(num_classes=C)
    other.cum_samples += torch.arange(C + 1)
    loss = build('SyncSeesawLoss')
    loss.load_state_dict(other.state_dict())
    assert loss.cum_samples.tolist() == list(range(C + 1))
    other.load_state_dict(loss.state_dict())


def test_equalization_v2_trains_as_that_of_mmdet_and_loads_it():
    other = build('EQLV2Loss').double()
    loss = build('EqualizationLossV2', prior_prob=None)
    for step in range(STEPS):
        rows = rows_of(loss, step)
        torch.testing.assert_close(
            loss(*rows), other(*rows), rtol=1e-5, atol=0
        )
    loss.load_state_dict(other.state_dict())


# -- limits ------------------------------------------------------------------


def test_seesaw_without_factors_is_cross_entropy():
    loss = build('SyncSeesawLoss', p=0.0, q=0.0)
    scores, labels = rows_of(loss, 0)
    terms = loss(scores, labels, reduction_override='none')
    expected = nn.functional.cross_entropy(
        scores[:, :C], labels.clamp(max=C - 1), reduction='none'
    )
    torch.testing.assert_close(
        terms['loss_cls_classes'], expected * (labels < C)
    )


def test_equalization_v2_begins_as_sigmoid_cross_entropy():
    loss = build('EqualizationLossV2', prior_prob=None)
    scores, labels = rows_of(loss, 0)
    target = nn.functional.one_hot(labels, C + 1).double()
    torch.testing.assert_close(
        loss(scores, labels),
        nn.functional.binary_cross_entropy_with_logits(
            scores, target, reduction='sum'
        )
        / len(labels),
    )


def test_label_weights_apply_to_the_gradients_of_equalization_v2():
    weighted, repeated = (build('EqualizationLossV2') for _ in range(2))
    scores, labels = rows_of(weighted, 0)
    weights = torch.arange(len(labels)) % 3
    weighted(scores, labels, weights)
    times = weights.tolist()
    index = [row for row, n in enumerate(times) for _ in range(n)]
    repeated(scores[index], labels[index])
    torch.testing.assert_close(weighted.pos_grad, repeated.pos_grad)
    torch.testing.assert_close(weighted.neg_grad, repeated.neg_grad)


def test_equilibrium_of_a_probability_that_underflows_is_finite():
    loss = build('EquilibriumLoss', momentum=0.0)
    scores = torch.zeros(1, C + 1)
    scores[0, -1] = 200.0
    for _ in range(2):
        value = loss(scores.requires_grad_(), torch.tensor([0]))
    value.backward()
    assert value.isfinite() and scores.grad.isfinite().all()


def test_equilibrium_of_equal_scores_is_cross_entropy():
    loss = build('EquilibriumLoss').eval()
    scores, labels = rows_of(loss, 0)
    torch.testing.assert_close(
        loss(scores, labels), nn.functional.cross_entropy(scores, labels)
    )

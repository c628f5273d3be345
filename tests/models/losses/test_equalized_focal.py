"""Equalized Focal Loss (EFL) and Equalized Quality Focal Loss (EQFL)."""

from __future__ import annotations

from types import SimpleNamespace

import naive
import pytest
import torch
import torch.nn.functional as F
from loss_cases import build
from loss_contract import C, labels_of, scores_of
from mmdet.models.losses import FocalLoss, QualityFocalLoss
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import nn

from mmdet_longtail.engine.hooks import OnlineStateHook
from mmdet_longtail.models.losses import sum_gradients

NAMES = ('EqualizedFocalLoss', 'EqualizedQualityFocalLoss')


def start(name, **changes):
    """The loss at the beginning of a training."""
    return MODELS.build(dict(type=name, num_classes=C, **changes))


def quality_of(num_rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(num_rows, generator=generator, dtype=torch.float64)


class Published:
    """The published losses, whose state follows from autograd's gradients."""

    def __init__(self, alpha, scale_factor=8.0):
        self.alpha = alpha
        self.scale_factor = scale_factor
        self.pos_grad = self.neg_grad = torch.zeros(C).double()
        self.pos_neg = torch.ones(C).double()

    def loss(self, scores, labels, quality, num_pos):
        is_label = F.one_hot(labels, C + 1)[:, :C].double()
        y = is_label * quality[:, None]
        focus = 2 + self.scale_factor * (1 - self.pos_neg)
        ce = F.binary_cross_entropy_with_logits(scores, y, reduction='none')
        missing = (y - scores.sigmoid()).abs()
        weight = torch.where(is_label == 1, *self.alpha)
        return (weight * focus / 2 * missing**focus * ce).sum() / num_pos

    def step(self, *batches):
        """The losses and gradients of the calls of an iteration."""
        results = []
        for scores, labels, quality, num_pos in batches:
            scores = scores.detach().requires_grad_()
            loss = self.loss(scores, labels, quality, num_pos)
            (gradient,) = torch.autograd.grad(loss, scores)
            is_label = F.one_hot(labels, C + 1)[:, :C]
            results.append((loss.detach(), gradient))
            self.pos_grad = self.pos_grad + (gradient.abs() * is_label).sum(0)
            negative = gradient.abs() * (1 - is_label)
            self.neg_grad = self.neg_grad + negative.sum(0)
        ratio = self.pos_grad / (self.neg_grad + 1e-10)
        self.pos_neg = ratio.clamp(0, 1)
        return results


def published(name):
    is_quality = 'Quality' in name
    return Published((1.0, 1.0) if is_quality else (0.25, 0.75))


def batch_of(name, loss, seed, num_rows=40, num_pos=7.0):
    """Scores, labels, quality and num_pos of a call."""
    scores = scores_of(loss, num_rows, seed) - 2
    quality = torch.ones(num_rows).double()
    if 'Quality' in name:
        quality = quality_of(num_rows, seed)
    return scores, labels_of(loss, num_rows, seed), quality, num_pos


def call(loss, scores, labels, quality, num_pos):
    scores = scores.detach().requires_grad_()
    target = (labels, quality) if loss.takes_quality else labels
    value = loss(scores, target, avg_factor=num_pos)
    value.backward()
    return value.detach(), scores.grad


def assert_equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize('name', NAMES)
def test_four_steps_equal_the_published_code(name):
    """Called directly, each call is an iteration."""
    loss, reference = start(name), published(name)
    for seed in range(4):
        batch = batch_of(name, loss, seed, num_pos=5.0 + seed)
        (expected,) = reference.step(batch)
        assert_equal(call(loss, *batch), expected)
        for key in ('pos_grad', 'neg_grad', 'pos_neg'):
            torch.testing.assert_close(
                getattr(loss, key), getattr(reference, key)
            )
    assert 0 < loss.pos_neg.min() < loss.pos_neg.max() <= 1


@pytest.mark.parametrize('name', NAMES)
def test_levels_of_one_iteration_share_a_state(name):
    """With the hook, as in a Runner."""
    loss, reference = start(name), published(name)
    hook, runner = OnlineStateHook(), SimpleNamespace(model=loss)
    hook.before_train(runner)
    for seed in range(3):
        levels = [
            batch_of(name, loss, 10 * seed + level, 8 * level)
            for level in range(1, 6)
        ]
        hook.before_train_iter(runner, 0)
        found = [call(loss, *level) for level in levels]
        hook.after_train_iter(runner, 0)
        for one, expected in zip(found, reference.step(*levels)):
            assert_equal(one, expected)
        torch.testing.assert_close(loss.pos_neg, reference.pos_neg)


@pytest.mark.parametrize('scale', [0.1, 3.0, 1e4])
def test_quality_equals_the_naive_loop(scale):
    loss = build('EqualizedQualityFocalLoss').eval()
    scores, labels = scores_of(loss, 20, scale=scale), labels_of(loss, 20)
    quality = quality_of(20)
    quality[:4] = torch.tensor([0.0, 1.0, 0.0, 1.0])
    value = loss(scores, (labels, quality), reduction_override='none')
    expected = naive.equalized_focal(
        scores.tolist(),
        labels.tolist(),
        loss.pos_neg.tolist(),
        quality.tolist(),
        alpha=(1.0, 1.0),
    )
    torch.testing.assert_close(value, torch.tensor(expected).double())


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('scale', [0.0, 2.0, 30.0])
def test_gradient_is_the_closed_form_of_the_paper(name, scale):
    """And of a quality, where it is not 1."""
    loss = build(name).eval()
    scores, labels = scores_of(loss, 20, scale=scale), labels_of(loss, 20)
    quality = quality_of(20)
    found = call(loss, scores, labels, quality, 7.0)
    reference = published(name)
    reference.pos_neg = loss.pos_neg
    if not loss.takes_quality:
        quality = torch.ones(20).double()
    (expected,) = reference.step((scores, labels, quality, 7.0))
    assert_equal(found, expected)
    q = scores.sigmoid()
    q = torch.where(F.one_hot(labels, C + 1)[:, :C] == 1, 1 - q, q)
    focus = 2 + 8 * (1 - loss.pos_neg)
    if not loss.takes_quality:
        is_label = F.one_hot(labels, C + 1)[:, :C] == 1
        size = torch.where(is_label, 0.25, 0.75) * focus / 2 * q**focus
        size = size * (q - torch.special.xlog1py(focus * (1 - q), -q)) / 7
        torch.testing.assert_close(found[1].abs(), size)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('name', NAMES)
def test_extreme_scores_leave_a_finite_state(name, dtype):
    loss = start(name)
    scores = scores_of(loss, 40, scale=1.0).sign() * 1e4
    for _ in range(3):
        value = loss(scores.to(dtype), labels_of(loss, 40), avg_factor=7.0)
        assert value.isfinite()
    state = loss.online_state().values()
    assert all(each.isfinite().all() for each in state)


def test_autocast_keeps_the_sums_in_single_precision():
    losses = [start('EqualizedFocalLoss') for _ in range(2)]
    scores = scores_of(losses[0], 40, dtype=torch.float32)
    for loss, enabled in zip(losses, (True, False)):
        with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            loss(scores, labels_of(loss, 40), avg_factor=7.0)
    assert torch.equal(losses[0].neg_grad, losses[1].neg_grad)
    assert torch.equal(losses[0].pos_grad, losses[1].pos_grad)


def test_without_a_scale_it_is_focal_loss():
    loss = build('EqualizedFocalLoss', scale_factor=0.0).eval()
    quality = build('EqualizedQualityFocalLoss', scale_factor=0.0).eval()
    scores, labels = scores_of(loss, 40), labels_of(loss, 40)
    weights, iou = torch.linspace(0, 2, 40).double(), quality_of(40)
    for ours, theirs, target in (
        (loss, FocalLoss(), labels),
        (quality, QualityFocalLoss(), (labels, iou)),
    ):
        torch.testing.assert_close(
            ours(scores, target, weights, avg_factor=7.0),
            theirs(scores, target, weights, avg_factor=7.0),
        )


def test_rows_weigh_in_the_state_as_in_the_loss():
    """Ignored rows do not count, under either name of the weights."""
    losses = [start('EqualizedFocalLoss') for _ in range(3)]
    scores, labels = scores_of(losses[0], 30), labels_of(losses[0], 30)
    keep = torch.arange(30) % 3 != 0
    losses[0](scores, labels, keep.float(), avg_factor=5.0)
    losses[1](scores, labels, weight=keep.float(), avg_factor=5.0)
    losses[2](scores[keep], labels[keep], avg_factor=torch.tensor([5.0]))
    for loss in losses[1:]:
        torch.testing.assert_close(loss.pos_grad, losses[0].pos_grad)
        torch.testing.assert_close(loss.neg_grad, losses[0].neg_grad)


def test_sums_equal_the_naive_loop():
    loss = start('EqualizedFocalLoss')
    gradient, labels = scores_of(loss, 20), labels_of(loss, 20)
    weights = torch.linspace(0, 2, 20).double()
    positive, negative = [0.0] * C, [0.0] * C
    for row, label, weight in zip(
        gradient.tolist(), labels.tolist(), weights.tolist()
    ):
        for j in range(C):
            sums = positive if j == label else negative
            sums[j] += weight * abs(row[j])
    for found, expected in zip(
        sum_gradients(gradient, labels, weights), (positive, negative)
    ):
        torch.testing.assert_close(found, torch.tensor(expected).double())


def test_a_state_is_saved_and_a_test_does_not_change_it():
    loss, fresh = (start('EqualizedFocalLoss') for _ in range(2))
    scores, labels = scores_of(loss, 20), labels_of(loss, 20)
    loss(scores, labels)
    assert loss.state_dict().keys() == {'pos_grad', 'neg_grad', 'pos_neg'}
    fresh.load_state_dict(loss.state_dict())
    torch.testing.assert_close(fresh(scores, labels), loss(scores, labels))
    before = {k: v.clone() for k, v in loss.state_dict().items()}
    loss.eval()(scores, labels)
    assert all(torch.equal(v, before[k]) for k, v in loss.state_dict().items())


# -- in heads ----------------------------------------------------------------


def head_config(kind, name):
    return ConfigDict(
        type=kind,
        num_classes=C,
        in_channels=4,
        feat_channels=4,
        stacked_convs=1,
        norm_cfg=None,
        anchor_generator=dict(
            type='AnchorGenerator',
            ratios=[1.0],
            octave_base_scale=8,
            scales_per_octave=1,
            strides=[8, 16],
        ),
        loss_cls=dict(type=name, num_classes=C, use_sigmoid=True),
        loss_bbox=dict(type='GIoULoss'),
        train_cfg=dict(
            assigner=dict(type='ATSSAssigner', topk=9),
            allowed_border=-1,
            pos_weight=-1,
        ),
    )


@pytest.mark.parametrize(
    'kind, name',
    [
        ('ATSSHead', 'EqualizedFocalLoss'),
        ('GFLHead', 'EqualizedQualityFocalLoss'),
    ],
)
def test_a_head_adds_up_its_levels(kind, name):
    """The state is that of all levels, once per iteration."""
    torch.manual_seed(0)
    head = MODELS.build(head_config(kind, name))
    head.init_weights()
    assert head.cls_out_channels == C
    calls = []
    head.loss_cls.register_forward_pre_hook(
        lambda _, args, kwargs: calls.append((args, kwargs)), with_kwargs=True
    )
    hook, runner = OnlineStateHook(), SimpleNamespace(model=head)
    hook.before_train(runner)
    hook.before_train_iter(runner, 0)
    features = [torch.randn(1, 4, size, size) for size in (16, 8)]
    sample = DetDataSample(
        metainfo=dict(img_shape=(128, 128), pad_shape=(128, 128))
    )
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[20.0, 20, 84, 84], [60.0, 50, 124, 120]]),
        labels=torch.tensor([1, 3]),
    )
    losses = head.loss(features, [sample])
    assert len(calls) == 2 and (head.loss_cls.pos_neg == 1).all()
    hook.after_train_iter(runner, 0)
    direct = start(name)
    scores = torch.cat([args[0] for args, _ in calls]).detach()
    targets = [args[1] for args, _ in calls]
    target = (
        torch.cat(targets)
        if torch.is_tensor(targets[0])
        else tuple(torch.cat(each) for each in zip(*targets))
    )
    avg_factor = calls[0][1]['avg_factor']
    value = direct(scores, target, avg_factor=avg_factor)
    torch.testing.assert_close(value, sum(losses['loss_cls']))
    torch.testing.assert_close(direct.pos_neg, head.loss_cls.pos_neg)
    is_positive = direct.pos_grad > 0
    assert is_positive.nonzero().flatten().tolist() == [1, 3]
    if kind == 'GFLHead':
        assert 0 < target[1].max() < 1


def test_detr_heads_give_the_quality():
    """They ask for a QualityFocalLoss by its type."""
    assert isinstance(start('EqualizedQualityFocalLoss'), QualityFocalLoss)
    assert isinstance(start('EqualizedFocalLoss'), nn.Module)

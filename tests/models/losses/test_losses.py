"""The contract for every registered loss, and the fixture of warnings."""

from __future__ import annotations

import inspect

import pytest
from loss_cases import CASES
from loss_contract import C, LossContract
from mmdet.registry import MODELS
from mmengine.config import ConfigDict

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models import losses as package
from mmdet_longtail.models.losses import LongTailLoss
from mmdet_longtail.models.losses.base import DenseHeadLoss


class TestContract(LossContract):
    cases = CASES


@pytest.mark.parametrize(
    'name', [n for n in CASES if issubclass(MODELS.get(n), DenseHeadLoss)]
)
def test_dense_heads_stay_in_charge(name):
    """They bring C columns, their own sigmoid and their bias prior."""
    loss_cls = dict(type=name, num_classes=C, use_sigmoid=True)
    head = MODELS.build(
        ConfigDict(
            type='RetinaHead', num_classes=C, in_channels=4, loss_cls=loss_cls
        )
    )
    assert head.cls_out_channels == C
    assert head.loss_cls.prior_logit == 0
    with pytest.raises(LongTailError, match=f'{name}: use_sigmoid is False'):
        MODELS.build(loss_cls | dict(use_sigmoid=False))


def test_every_loss_is_in_the_contract():
    registered = {
        name
        for name, module in MODELS.module_dict.items()
        if inspect.isclass(module)
        and issubclass(module, LongTailLoss)
        and module.__module__.startswith(package.__name__)
    }
    assert registered == set(CASES)
    assert registered < set(vars(package))


@pytest.mark.parametrize(
    'name, setting',
    [
        ('EqualizationLoss', dict(frequency_threshold=1.5)),
        ('EqualizationLoss', dict(frequency_threshold=-0.1)),
        ('EqualizationLoss', dict(tail_ratio=9)),
        ('EqualizationLoss', dict(prior_prob=0.0)),
        ('SoftmaxEqualizationLoss', dict(ignore_probability=1.1)),
        ('SoftmaxEqualizationLoss', dict(ignore_probability=-0.1)),
        ('SoftmaxEqualizationLoss', dict(tail_ratio=9)),
        ('FederatedLoss', dict(num_sampled_classes=0)),
        ('FederatedLoss', dict(num_sampled_classes=50.0)),
        ('FederatedLoss', dict(power=-0.5)),
        ('FederatedLoss', dict(prior_prob=1)),
        ('VerifiedFederatedLoss', dict(prior_prob=0)),
        ('DropLoss', dict(frequency_threshold=2)),
        ('DropLoss', dict(prior_prob=0)),
        ('GumbelDropLoss', dict(prior_prob=1)),
        ('GumbelEqualizationLoss', dict(prior_prob=0)),
        ('EqualizedFocalLoss', dict(gamma=0.5)),
        ('EqualizedFocalLoss', dict(alpha=2)),
        ('EqualizedFocalLoss', dict(scale_factor=-1)),
        ('EqualizedQualityFocalLoss', dict(gamma=0.5)),
        ('RoIFocalLoss', dict(gamma=0.5)),
        ('RoIFocalLoss', dict(alpha=2)),
        ('RoIFocalLoss', dict(prior_prob=1)),
        ('EqualizationLossV2', dict(gamma=-1)),
        ('EqualizationLossV2', dict(mu=None)),
        ('EqualizationLossV2', dict(alpha=-0.1)),
        ('EqualizationLossV2', dict(prior_prob=0)),
        ('SyncSeesawLoss', dict(p=-1)),
        ('SyncSeesawLoss', dict(q='2')),
        ('SyncSeesawLoss', dict(eps=0)),
        ('EquilibriumLoss', dict(momentum=1.1)),
        ('EquilibriumLoss', dict(initial_score=0)),
        ('EquilibriumLoss', dict(background_score=2)),
        ('EffectiveClassMarginLoss', dict(background_ratio=0)),
        ('BalancedGroupSoftmaxLoss', dict(bin_edges=())),
        ('BalancedGroupSoftmaxLoss', dict(bin_edges=(100, 10))),
        ('BalancedGroupSoftmaxLoss', dict(bin_edges=(0, 10))),
        ('BalancedGroupSoftmaxLoss', dict(bin_edges=(10, float('nan')))),
        ('BalancedGroupSoftmaxLoss', dict(others_ratio=-1)),
    ],
)
def test_settings_out_of_range_are_one_line(name, setting):
    (key,) = setting
    with pytest.raises(LongTailError, match=key) as error:
        MODELS.get(name)(C, **setting)
    assert '\n' not in str(error.value)

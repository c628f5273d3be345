"""Hooks that follow a key of a metric know that more is better."""

import pytest
from mmengine.hooks import CheckpointHook, EarlyStoppingHook

import mmdet_longtail.evaluation.metrics  # noqa: F401

KEYS = [
    'frequency_group/bbox_AP',
    'frequency_group/segm_APr',
    'frequency_group/bbox_AP_below_10',
    'fixed_ap/bbox_AP',
    'proposal_recall/AR_rare',
    'openimages/AP1',
]


@pytest.mark.parametrize('key', KEYS)
def test_rule_is_inferred(key):
    assert EarlyStoppingHook(monitor=key).rule == 'greater'
    assert CheckpointHook(save_best=key).rules == ['greater']


def test_rule_of_a_loss_stays():
    assert EarlyStoppingHook(monitor='loss').rule == 'less'
    assert CheckpointHook(save_best='loss').rules == ['less']

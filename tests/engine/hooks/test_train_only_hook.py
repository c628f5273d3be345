from pathlib import Path

import pytest
import torch
from hook_runs import (
    CLASSIFIER,
    changed_names,
    runner_of,
    weights_at_start,
    weights_of,
)
from mmdet.registry import HOOKS
from ranks import run_on_two_ranks

from mmdet_longtail.errors import LongTailError

ONLY_CLASSIFIER = dict(
    type='TrainOnlyHook', trainable=['roi_head.bbox_head.fc_cls']
)


def test_only_the_named_part_learns(data, tmp_path, messages):
    """The running means of normalisation stay as they are, too."""
    overrides = {
        'custom_hooks': [ONLY_CLASSIFIER],
        # mmdet's backbones keep these layers in eval mode by default.
        'model.backbone.norm_eval': False,
    }
    runner = runner_of(data, tmp_path, **overrides)
    before = weights_at_start(messages(runner))
    assert changed_names(before, weights_of(runner)) == CLASSIFIER
    assert 'Training 68 of' in messages.text()


def test_a_name_that_matches_nothing_is_an_error(data, tmp_path):
    runner = runner_of(
        data,
        tmp_path,
        custom_hooks=[dict(type='TrainOnlyHook', trainable=['fc_class'])],
    )
    with pytest.raises(LongTailError, match="'fc_class' matches no"):
        runner.train()


@pytest.mark.parametrize(
    'trainable', [[], (), '', 'roi_head.bbox_head.fc_cls', None, [1]]
)
def test_names_have_to_be_in_a_list(trainable):
    with pytest.raises(LongTailError, match='trainable'):
        HOOKS.build(dict(type='TrainOnlyHook', trainable=trainable))


def test_ranks_stay_equal_when_most_is_frozen(data, tmp_path):
    """DDP wraps before the hook freezes, so the hook wraps again."""
    run_on_two_ranks(_train_on_rank, str(data), str(tmp_path))
    first, second = (
        torch.load(tmp_path / f'{rank}.pth', weights_only=True)
        for rank in range(2)
    )
    assert not changed_names(first['after'], second['after'])
    assert changed_names(first['before'], first['after']) == CLASSIFIER


def _train_on_rank(rank, data, folder):
    runner = runner_of(
        Path(data),
        Path(folder, f'rank{rank}'),
        custom_hooks=[ONLY_CLASSIFIER],
        launcher='pytorch',
        model_wrapper_cfg=dict(
            type='MMDistributedDataParallel',
            device_ids=None,
            broadcast_buffers=False,
        ),
    )
    before = weights_at_start(runner)
    after = weights_of(runner)
    torch.save(dict(before=before, after=after), f'{folder}/{rank}.pth')

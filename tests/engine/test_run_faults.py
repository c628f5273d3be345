"""Faults that end a training before its first iteration."""

import json

import pytest
import torch
from hook_runs import BAGS, runner_of
from tiny import make_data

from mmdet_longtail.errors import LongTailError

MONITOR = {
    'default_hooks.checkpoint.save_best': 'frequency_group/bbox_AP',
    'default_hooks.checkpoint.rule': 'greater',
}


@pytest.fixture
def data(tmp_path):
    return make_data(tmp_path / 'data')


def refused(data, **overrides):
    runner = runner_of(data, data.parent / 'work', BAGS, **overrides)
    with pytest.raises(LongTailError) as raised:
        runner.train()
    assert runner.iter == 0
    return str(raised.value)


def test_categories_of_the_validation_file_in_another_order(data):
    content = json.loads((data / 'val.json').read_text())
    content['categories'].reverse()
    (data / 'val.json').write_text(json.dumps(content))
    assert 'class 0' in refused(data)


def test_key_that_the_metric_does_not_report(data):
    assert 'coco/bbox_mAP' in refused(data, **MONITOR)


@pytest.mark.parametrize(
    'content', [dict(epoch=1), dict(model={'a': torch.zeros(1)})]
)
def test_checkpoint_without_weights_of_the_model(data, content):
    path = data.parent / 'weights.pth'
    torch.save(content, path)
    assert str(path) in refused(data, load_from=str(path))


def test_frozen_detector_without_weights(data):
    train_only = dict(
        type='TrainOnlyHook', trainable=['roi_head.bbox_head.fc_cls']
    )
    path = data.parent / 'weights.pth'
    weights = runner_of(data, data.parent / 'base').model.state_dict()
    kept = {k: v for k, v in weights.items() if 'rpn' not in k}
    torch.save(dict(state_dict=kept, meta={}), path)
    message = refused(
        data,
        load_from=str(path),
        **{'default_hooks.train_only': train_only},
    )
    assert 'frozen' in message and 'rpn_head' in message

"""apis/two_stage.py: a second stage of any checkpoint, from Python."""

import json

import pytest
from mmengine.config import Config
from tiny import make_data, write_config
from tool_runs import environment, run_tool

from mmdet_longtail.apis.two_stage import train_two_stage
from mmdet_longtail.errors import LongTailError

CASCADE = """
_base_ = 'softmax.py'
head = _base_.model.roi_head.bbox_head
model = dict(
    type='CascadeRCNN',
    roi_head=dict(
        type='CascadeRoIHead', num_stages=2, stage_loss_weights=[1, 0.5],
        bbox_head=[dict(head), dict(head)]),
    train_cfg=dict(rcnn=[_base_.model.train_cfg.rcnn] * 2))
val_evaluator = [
    dict(type='CocoMetric', ann_file=_base_.val_evaluator.ann_file)]
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(save_best='coco/bbox_mAP'))
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A trained cascade: a list of metrics, the best by COCO's AP."""
    monkeypatch.chdir(tmp_path)
    for key, value in environment().items():
        monkeypatch.setenv(key, value)
    write_config(tmp_path / 'softmax.py', make_data(tmp_path / 'data'))
    (tmp_path / 'cascade.py').write_text(CASCADE)
    run_tool('train.py', 'cascade.py', '--work-dir', 'run', cwd=tmp_path)
    return tmp_path


def modified(folder):
    return {
        path: path.stat().st_mtime_ns
        for path in folder.rglob('*')
        if path.is_file() and path.name != '.lock'
    }


def test_second_stage_of_a_checkpoint_alone(project, capsys):
    options = {
        'base_checkpoint': 'run/epoch_1.pth',
        'work_dir': 'two',
        'cfg_options': {'optim_wrapper.optimizer.lr': 0.002},
    }
    result = train_two_stage(**options)
    assert 'wrote two/base.py and two/bags.py' in capsys.readouterr().out
    config = Config.fromfile('two/bags.py')
    assert config.optim_wrapper.optimizer.lr == 0.002
    assert config.load_from == 'two/bags/start.pth'
    assert config.get('work_dir') is None
    assert config.custom_imports.imports == ['mmdet_longtail']
    hook = config.default_hooks.train_only
    assert hook.trainable == ['roi_head.bbox_head.*.fc_cls']
    assert config.default_hooks.checkpoint.save_best == (
        'frequency_group/bbox_AP'
    )
    assert config.model.test_cfg.rcnn.max_per_img == 300
    for head in config.model.roi_head.bbox_head:
        assert head.loss_cls.type == 'BalancedGroupSoftmaxLoss'
        assert head.loss_cls.bin_edges == (3,)
    assert config.val_evaluator[0].type == 'FrequencyGroupMetric'
    assert None not in result['metrics']['frequency_group/bbox_APr'].values()
    written = (project / 'two' / 'bags' / 'before_after.json').read_text()
    assert json.loads(written) == result

    before = modified(project)
    assert train_two_stage(**options) == result
    assert modified(project) == before
    with pytest.raises(
        LongTailError, match=r'base\.py: is not the config in run/epoch'
    ):
        train_two_stage(base_checkpoint='run', work_dir='two')

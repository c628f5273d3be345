"""What a training writes for TensorBoard, read back by TensorBoard."""

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from tensorboard.backend.event_processing.event_accumulator import (
    EventAccumulator,
)
from tiny import make_data, write_config

LOSSES = {
    'EqualizationLoss': dict(frequency_threshold=0.6),
    'BalancedGroupSoftmaxLoss': dict(bin_edges=(2, 3)),
}
EPOCHS = 2


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp('data') / 'data')


def train(data, work_dir, loss, **overrides):
    """Train, and give the scalars: tag -> [(step, value)]."""
    torch.set_num_threads(1)
    config = Config.fromfile(write_config(work_dir.with_suffix('.py'), data))
    config.merge_from_dict(
        {
            'model.roi_head.bbox_head.loss_cls': dict(
                _delete_=True, type=loss, num_classes=4, **LOSSES[loss]
            ),
            'default_hooks.class_statistics': dict(type='ClassStatisticsHook'),
            'visualizer.vis_backends': [dict(type='TensorboardVisBackend')],
            'val_evaluator.type': 'FrequencyGroupMetric',
            'train_cfg.max_epochs': EPOCHS,
            'work_dir': str(work_dir),
            'experiment_name': work_dir.name,
            **overrides,
        }
    )
    runner = Runner.from_cfg(config)
    runner.train()
    runner.visualizer.close()
    (folder,) = work_dir.glob(f'{runner.timestamp}/vis_data')
    events = EventAccumulator(str(folder)).Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()['scalars']
    }


def test_bags(data, tmp_path):
    scalars = train(data, tmp_path / 'bags', 'BalancedGroupSoftmaxLoss')
    for name in ('below_2', '2_to_3', 'from_3', 'foreground'):
        steps, values = zip(*scalars[f'loss_cls_{name}'])
        assert steps == (1, 2, 3, 4)
        assert all(value >= 0 for value in values)
    for group in ('AP', 'APr', 'APc', 'APf'):
        ((step, value), *_) = scalars[f'frequency_group/bbox_{group}']
        assert step == 1 and -1 <= value <= 1
    # The four classes have 4, 3, 2 and 1 boxes in as many images.
    prefix = 'BalancedGroupSoftmaxLoss'
    assert scalars[f'{prefix}/num_classes_below_2'] == [(0, 1)]
    assert scalars[f'{prefix}/num_classes_2_to_3'] == [(0, 1)]
    assert scalars[f'{prefix}/num_classes_from_3'] == [(0, 2)]
    assert scalars[f'{prefix}/num_instances_from_3'] == [(0, 7)]
    assert scalars['class_statistics/num_images'] == [(0, 4)]
    assert scalars['class_statistics/num_instances'] == [(0, 10)]
    assert scalars['class_statistics/num_rare_classes'] == [(0, 4)]
    assert scalars['class_statistics/num_frequent_classes'] == [(0, 0)]


def test_eql(data, tmp_path):
    scalars = train(data, tmp_path / 'eql', 'EqualizationLoss')
    values = {
        name: scalars[f'EqualizationLoss/{name}'][0][1]
        for name in ('frequency_threshold', 'tail_ratio', 'num_tail_classes')
    }
    # Classes in 2 and in 1 of 4 images are below 0.6.
    assert values == {
        'frequency_threshold': pytest.approx(0.6),
        'tail_ratio': pytest.approx(0.3),
        'num_tail_classes': 2,
    }


def test_a_resumed_run_goes_on_where_it_was(data, tmp_path):
    work_dir = tmp_path / 'run'
    train(data, work_dir, 'EqualizationLoss')
    more = {'train_cfg.max_epochs': EPOCHS + 1, 'resume': True}
    scalars = train(
        data,
        work_dir,
        'EqualizationLoss',
        **more,
        experiment_name='resumed',
    )
    assert [step for step, _ in scalars['loss_cls']] == [5, 6]
    assert [step for step, _ in scalars['class_statistics/num_images']] == [4]

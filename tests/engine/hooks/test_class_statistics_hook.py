"""The hook in a real Runner, on a detector that trains in a second."""

import json
from pathlib import Path

import pytest
import torch
from hook_runs import BAGS, CLASSES, EQL, LOSSES, config_of, runner_of
from loss_contract import follows_from
from mmengine.runner import Runner
from ranks import run_on_two_ranks

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.structures import Checkpoint, ClassStatistics


def loss_of(runner):
    return runner.model.roi_head.bbox_head.loss_cls


def saved_statistics(runner):
    path = f'{runner.work_dir}/epoch_{runner.max_epochs}.pth'
    return Checkpoint.load(path).class_statistics


def counted(data):
    return ClassStatistics.from_annotation_file(data / 'train.json')


def with_other_counts(data, path):
    """Statistics of the same classes in a larger training set."""
    statistics = counted(data)
    other = ClassStatistics(
        statistics.class_names,
        statistics.image_count * 10,
        statistics.instance_count * 20,
        90,
        60,
    )
    other.save(path)
    return other


@pytest.mark.parametrize('loss_cls', [EQL, BAGS])
def test_training_fills_losses_metrics_and_checkpoint(
    data, tmp_path, loss_cls, messages
):
    runner = runner_of(
        data,
        tmp_path,
        loss_cls,
        val_evaluator=dict(
            _delete_=True,
            type='FrequencyGroupMetric',
            ann_file=f'{data}/val.json',
        ),
    )
    messages(runner).train()
    expected = counted(data)
    assert follows_from(loss_of(runner), expected)
    checkpoint = torch.load(tmp_path / 'epoch_1.pth', weights_only=True)
    assert (
        ClassStatistics.from_dict(checkpoint['class_statistics']) == expected
    )
    assert not [key for key in checkpoint['state_dict'] if 'count' in key]
    assert '4 classes (4 rare' in messages.text()
    for line in loss_of(runner).describe_classes(expected):
        kind = loss_cls['type']
        assert messages.text().count(f'{kind}: {line}') == 1
    assert 'APr' in messages.text()


def test_wrapped_and_concatenated_data_count_once(data, tmp_path):
    config = config_of(data, tmp_path)
    dataset = config.train_dataloader.dataset
    config.train_dataloader.dataset = dict(
        type='RepeatDataset',
        times=3,
        dataset=dict(type='ConcatDataset', datasets=[dataset, dataset]),
    )
    runner = Runner.from_cfg(config)
    runner.train()
    once = counted(data)
    twice = saved_statistics(runner)
    assert twice.instance_count.tolist() == (2 * once.instance_count).tolist()
    assert twice.num_images == 2 * once.num_images


def test_file_wins_over_the_training_set(data, tmp_path):
    other = with_other_counts(data, tmp_path / 'other.json')
    runner = runner_of(
        data,
        tmp_path / 'run',
        hook=dict(
            type='ClassStatisticsHook',
            class_statistics=str(tmp_path / 'other.json'),
        ),
    )
    runner.train()
    assert follows_from(loss_of(runner), other)


def test_file_may_spell_a_class_as_the_annotations_do(data, tmp_path):
    """mmdet's LVIS names differ from the LVIS files' in one class."""
    counted(data).save(tmp_path / 'counts.json')
    config = config_of(
        data,
        tmp_path / 'run',
        hook=dict(
            type='ClassStatisticsHook',
            class_statistics=str(tmp_path / 'counts.json'),
        ),
    )
    config.train_dataloader.dataset.update(
        type='LVISV05Dataset',
        metainfo=dict(classes=('disc', 'sqare', 'ring', 'cross')),
    )
    config.val_dataloader = config.val_cfg = config.val_evaluator = None
    runner = Runner.from_cfg(config)
    runner.train()
    assert follows_from(loss_of(runner), counted(data))


@pytest.mark.parametrize('update_buffers', [False, True])
def test_resume_takes_the_checkpoint_and_load_from_does_not(
    data, tmp_path, update_buffers
):
    """With EMA, whose copy is made and loaded in between."""
    other = with_other_counts(data, tmp_path / 'other.json')
    ema = [dict(type='EMAHook', update_buffers=update_buffers, momentum=0.5)]
    runner_of(
        data,
        tmp_path / 'first',
        custom_hooks=ema,
        hook=dict(
            type='ClassStatisticsHook',
            class_statistics=str(tmp_path / 'other.json'),
        ),
    ).train()
    checkpoint = str(tmp_path / 'first/epoch_1.pth')

    resumed = runner_of(
        data,
        tmp_path / 'resumed',
        custom_hooks=ema,
        load_from=checkpoint,
        resume=True,
        train_cfg=dict(max_epochs=2),
    )
    resumed.train()
    loaded = runner_of(
        data, tmp_path / 'loaded', custom_hooks=ema, load_from=checkpoint
    )
    loaded.train()
    for runner, expected in ((resumed, other), (loaded, counted(data))):
        ema_model = next(
            hook.ema_model
            for hook in runner.hooks
            if hasattr(hook, 'ema_model')
        )
        ema_loss = ema_model.module.roi_head.bbox_head.loss_cls
        for loss in (loss_of(runner), ema_loss):
            is_tail = expected.image_frequency < 0.6
            assert loss.tail_weight.tolist() == is_tail.tolist()
        assert saved_statistics(runner) == expected


@pytest.mark.parametrize('name', LOSSES)
def test_test_run_needs_no_training_set(data, tmp_path, trained, name):
    """Neither do metrics with softmax: the checkpoint has the statistics."""
    config = config_of(
        data,
        tmp_path,
        LOSSES[name],
        load_from=str(trained(name)),
        test_evaluator=dict(
            _delete_=True,
            type='FrequencyGroupMetric',
            ann_file=f'{data}/val.json',
        ),
    )
    config.train_dataloader.dataset.ann_file = 'gone.json'
    runner = Runner.from_cfg(config)
    metrics = runner.test()
    assert isinstance(runner._train_loop, dict)
    assert any(key.endswith('APr') for key in metrics)


def test_checkpoint_without_statistics_at_test(data, tmp_path, trained):
    """EQL predicts by sigmoids alone; BAGS has to know its bins."""
    checkpoint = torch.load(trained('softmax'), weights_only=True)
    del checkpoint['class_statistics']
    path = tmp_path / 'bare.pth'
    for loss_cls, num_columns in ((EQL, CLASSES), (BAGS, CLASSES + 5)):
        for name in ('weight', 'bias'):
            key = f'roi_head.bbox_head.fc_cls.{name}'
            value = checkpoint['state_dict'][key]
            shape = (num_columns, *value.shape[1:])
            checkpoint['state_dict'][key] = value.new_zeros(shape)
        torch.save(checkpoint, path)
        runner = runner_of(
            data, tmp_path / 'test', loss_cls, load_from=str(path)
        )
        if loss_cls is EQL:
            runner.test()
            continue
        with pytest.raises(
            LongTailError, match='no class statistics'
        ) as error:
            runner.test()
        assert '\n' not in str(error.value)


def test_training_without_the_hook_names_it(data, tmp_path):
    runner = runner_of(data, tmp_path, hook=None)
    with pytest.raises(LongTailError, match='ClassStatisticsHook'):
        runner.train()


@pytest.mark.parametrize('task', ['resume', 'test'])
def test_checkpoint_of_another_layout(data, tmp_path, trained, task):
    runner = runner_of(
        data,
        tmp_path,
        BAGS,
        load_from=str(trained('softmax')),
        resume=task == 'resume',
    )
    with pytest.raises(LongTailError, match=r'fc_cls.* is \(5, 16\), but'):
        runner.test() if task == 'test' else runner.train()


def rename(data, folder, order):
    """The same data with its categories under other names."""
    folder.mkdir()
    (folder / 'images').symlink_to(data / 'images')
    for split in ('train', 'val'):
        content = json.loads((data / f'{split}.json').read_text())
        names = [category['name'] for category in content['categories']]
        for category, index in zip(content['categories'], order):
            category['name'] = names[index]
        (folder / f'{split}.json').write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize('case', ['file', 'resume', 'test'])
def test_other_classes_are_an_error(data, tmp_path, trained, case):
    other = rename(data, tmp_path / 'other', [0, 2, 1, 3])
    settings = dict(load_from=str(trained('EQL')), resume=case == 'resume')
    if case == 'file':
        counted(data).save(tmp_path / 'statistics.json')
        settings = dict(
            hook=dict(
                type='ClassStatisticsHook',
                class_statistics=str(tmp_path / 'statistics.json'),
            )
        )
    runner = runner_of(other, tmp_path / 'run', **settings)
    with pytest.raises(LongTailError, match="class 1 is 'square'"):
        runner.test() if case == 'test' else runner.train()


def test_large_score_thr_is_said_at_test(data, tmp_path, messages):
    runner = runner_of(
        data, tmp_path, **{'model.test_cfg.rcnn.score_thr': 0.05}
    )
    messages(runner).train()
    assert messages.text().count('score_thr=0.05 drops most') == 1
    assert 'score_thr=1e-4' in messages.text()


def test_wrong_annotations_reach_every_rank(data, tmp_path):
    """Two gloo ranks: the same counts, or the same error, on both."""
    run_on_two_ranks(_count_on_rank, str(data), str(tmp_path))
    results = [
        json.loads((tmp_path / f'{rank}.json').read_text())
        for rank in range(2)
    ]
    assert results[0] == results[1]
    assert results[0]['counts'] == counted(data).instance_count.tolist()
    assert 'no.json' in results[0]['error']


def _count_on_rank(rank, data, folder):
    from mmdet_longtail.datasets import AnnotationFileDataset
    from mmdet_longtail.engine.hooks.class_statistics_hook import (
        count_on_main_rank,
    )

    dataset = AnnotationFileDataset(
        ann_file=f'{data}/train.json',
        data_prefix=dict(img='images/'),
        pipeline=[],
    )
    if rank == 1:
        dataset.ann_file = 'only rank 0 reads'
    counts = count_on_main_rank(dataset).instance_count.tolist()
    dataset.ann_file = f'{folder}/no.json'
    try:
        count_on_main_rank(dataset)
    except LongTailError as error:
        message = str(error)
    Path(folder, f'{rank}.json').write_text(
        json.dumps(dict(counts=counts, error=message))
    )

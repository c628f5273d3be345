"""Training with mmpretrain's runner, as a user does."""

import json
import os

import numpy as np
import pytest
import torch
from fake_cifar import WITHOUT_CHECKSUMS
from loss_contract import follows_from
from mmengine.config import Config
from mmengine.runner import Runner
from tool_runs import ROOT, command, run_process, run_tool

from mmdet_longtail.classification.long_tail import exponential_image_count
from mmdet_longtail.errors import LongTailError

SEQL = ROOT / 'configs/classification/resnet32_seql_cifar-100-lt.py'


@pytest.fixture
def config(cifar100, without_checksums, tmp_path):
    """The shipped config, for three iterations on four images each."""
    config = Config.fromfile(SEQL)
    config.merge_from_dict(small(cifar100))
    config.work_dir = str(tmp_path / 'work')
    return config


def small(cifar100):
    options = {
        'train_cfg.max_iters': 3,
        'train_cfg.val_interval': 3,
        'default_hooks.checkpoint.interval': 3,
        'default_hooks.logger.interval': 1,
    }
    for split in ('train', 'val', 'test'):
        options[f'{split}_dataloader.batch_size'] = 4
        options[f'{split}_dataloader.num_workers'] = 0
        options[f'{split}_dataloader.persistent_workers'] = False
        options[f'{split}_dataloader.dataset.data_root'] = str(cifar100)
    return options


def head_loss(runner):
    return runner.model.head.loss_module


def test_counts_reach_the_loss_the_metric_and_the_checkpoint(config):
    image_count = exponential_image_count(100, 500, 200)
    runner = Runner.from_cfg(config)
    runner.train()
    metric = runner.val_evaluator.metrics[1]
    assert metric.statistics.image_count.tolist() == image_count.tolist()
    assert metric.statistics.num_images == 9502
    assert follows_from(head_loss(runner), metric.statistics)
    losses = runner.message_hub.get_scalar('train/loss').data[0]
    assert len(losses) == 3 and np.isfinite(losses).all()

    # A test needs the checkpoint alone.
    config.load_from = f'{config.work_dir}/iter_3.pth'
    config.experiment_name = 'tested'
    for key in (
        'train_dataloader',
        'train_cfg',
        'optim_wrapper',
        'param_scheduler',
    ):
        config.pop(key)
    tested = Runner.from_cfg(config)
    metrics = tested.test()
    assert follows_from(head_loss(tested), metric.statistics)
    assert {f'accuracy/{k}' for k in ('top1', 'top5', 'many', 'few')} <= (
        metrics.keys()
    )


def test_prediction_is_the_softmax_of_the_scores(config):
    runner = Runner.from_cfg(config)
    model = runner.model.eval()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        scores = model(images)
        predicted = model(images, mode='predict')
    for row, sample in zip(scores, predicted):
        assert torch.allclose(sample.pred_score, row.softmax(0))


def test_no_hook_is_one_clear_line(config):
    config.default_hooks.pop('class_statistics')
    with pytest.raises(LongTailError, match='there are no class statistics'):
        Runner.from_cfg(config).train()


def test_wrong_num_classes_is_one_clear_line(config):
    config.model.head.loss.num_classes = 99
    with pytest.raises(LongTailError, match='num_classes is 99'):
        Runner.from_cfg(config).train()


def test_tools_train_and_test(cifar100, tmp_path, monkeypatch):
    config = tmp_path / 'seql.py'
    config.write_text(
        f'_base_ = {str(SEQL)!r}\n'
        "custom_imports = dict(imports=['mmdet_longtail', "
        "'mmdet_longtail.classification', 'other_images'])\n"
    )
    (tmp_path / 'other_images.py').write_text(WITHOUT_CHECKSUMS)
    paths = [str(tmp_path), os.environ.get('PYTHONPATH', '')]
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join(filter(None, paths)))
    options = [f'{key}={value}' for key, value in small(cifar100).items()]
    work_dir = tmp_path / 'work'
    run_tool(
        'train.py',
        config,
        *('--work-dir', work_dir, '--cfg-options', *options),
        cwd=tmp_path,
    )
    metrics = json.loads((work_dir / 'metrics.json').read_text())
    assert 0 <= metrics['accuracy/few'] <= 100
    run_tool(
        'test.py',
        *(config, work_dir / 'iter_3.pth', '--work-dir', work_dir),
        *('--json', 'tested.json', '--cfg-options', *options),
        cwd=tmp_path,
    )
    tested = json.loads((tmp_path / 'tested.json').read_text())
    assert tested['metrics']['accuracy/few'] == metrics['accuracy/few']


def test_tools_say_where_data_is_missing(tmp_path):
    """mmpretrain would download CIFAR-100; ImageNet's lists are ours."""
    config = ROOT / 'configs/classification/resnet10_seql_imagenet-lt.py'
    process = run_process(command('train.py', config), tmp_path)
    assert process.returncode == 1
    (line,) = process.stderr.strip().splitlines()[-1:]
    assert line.startswith('error: data/imagenet/ImageNet_LT_train.txt: no su')


def test_digits(tmp_path):
    run_tool(
        'benchmarks/digits.py',
        *('--iterations', 4, '--seeds', 0, '--gammas', 0, 0.9),
        *('--json', 'digits.json'),
        cwd=tmp_path,
    )
    figures = json.loads((tmp_path / 'digits.json').read_text())
    assert [row['gamma'] for row in figures] == [0, 0.9]
    for row in figures:
        assert row.keys() == {'gamma', 'top1', 'many', 'medium', 'few'}

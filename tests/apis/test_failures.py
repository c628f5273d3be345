"""What a run fails with is one line where the config is the cause."""

import pytest
from mmengine.config import Config
from mmengine.hooks import EarlyStoppingHook
from tiny import make_data, write_config

from mmdet_longtail.apis.runner import failures_explained
from mmdet_longtail.apis.train import train_detector
from mmdet_longtail.errors import LongTailError


def test_a_batch_larger_than_the_dataset(tmp_path):
    config = write_config(tmp_path / 'c.py', make_data(tmp_path / 'data'))
    options = {
        'train_dataloader.batch_size': 100,
        'train_dataloader.drop_last': True,
    }
    with pytest.raises(LongTailError, match='no batch of its 4 images'):
        train_detector(config, work_dir=tmp_path / 'w', cfg_options=options)
    assert not [*(tmp_path / 'w').glob('*.pth')]


def test_a_string_of_classes(tmp_path):
    data = make_data(tmp_path / 'data', class_names=('disc',))
    config = write_config(tmp_path / 'c.py', data, num_classes=1)
    options = {'train_dataloader.dataset.metainfo': dict(classes='disc')}
    with pytest.raises(LongTailError, match=r"classes=\('disc',\)"):
        train_detector(config, work_dir=tmp_path / 'w', cfg_options=options)


def test_a_key_that_no_metric_reports():
    hook = EarlyStoppingHook(monitor='coco/AP', rule='greater', strict=True)
    with (
        pytest.raises(
            LongTailError, match=r'EarlyStoppingHook.*group/bbox_AP'
        ),
        failures_explained(Config()),
    ):
        hook.after_val_epoch(None, {'frequency_group/bbox_AP': 0.1})


def test_a_package_that_is_not_installed():
    with (
        pytest.raises(LongTailError, match='install wandb'),
        failures_explained(Config()),
    ):
        raise ImportError('Please run "pip install wandb" to install wandb')


def test_a_bug_stays_as_it_is():
    with pytest.raises(KeyError), failures_explained(Config()):
        raise KeyError('a bug')


def test_a_missing_training_set_does_not_hide_another_failure():
    dataset = dict(type='CocoDataset', ann_file='no.json')
    config = Config(dict(train_dataloader=dict(dataset=dataset)))
    with pytest.raises(KeyError), failures_explained(config):
        raise KeyError('a bug')
    with (
        pytest.raises(LongTailError, match=r'no\.json'),
        failures_explained(config),
    ):
        raise FileNotFoundError('no.json')


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'train_cfg.max_epochs': 0}, '0 iterations'),
        ({'train_dataloader.batch_size': '2'}, 'batch_size'),
        ({'train_dataloader.num_workers': -1}, 'num_workers'),
        ({'optim_wrapper.optimizer.lr': 'fast'}, "'str' and 'float'"),
        ({'model.roi_head.bbox_head.num_classes': '4'}, 'concatenate str'),
        ({'model': 3}, 'model is 3'),
    ],
)
def test_a_value_that_mmengine_cannot_use(options, words, tmp_path):
    config = write_config(tmp_path / 'c.py', make_data(tmp_path / 'data'))
    with pytest.raises(LongTailError, match=words) as caught:
        train_detector(config, work_dir=tmp_path / 'w', cfg_options=options)
    assert '\n' not in str(caught.value)

"""apis/config_writer.py: the losses and settings that configs are given."""

import pytest
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from tiny import make_data, write_config

from mmdet_longtail.apis.config_writer import make_config
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.losses import (
    BalancedGroupSoftmaxLoss,
    SoftmaxEqualizationLoss,
)


class MadeUpEqualizationLoss(SoftmaxEqualizationLoss):
    """A loss of a user, whose settings are those of its base and one more."""

    def __init__(self, *args, strength=0.5, **kwargs):
        super().__init__(*args, **kwargs)
        self.strength = strength


class MadeUpGroupLoss(BalancedGroupSoftmaxLoss):
    """A loss of a user without settings of its own."""


@pytest.fixture(params=[MadeUpEqualizationLoss, MadeUpGroupLoss])
def made_up_loss(request):
    register_all_modules()
    MODELS.register_module(module=request.param)
    yield request.param.__name__
    MODELS.module_dict.pop(request.param.__name__)


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path / 'tiny.py', make_data(tmp_path / 'data'))
    return tmp_path


def write(method, **options):
    options = {'base': ['tiny.py']} | options
    return make_config('data', 'train.json', 'val.json', method, **options)


def test_a_loss_registered_later_is_written(made_up_loss, project):
    path = write(made_up_loss)
    assert path.name == f'data_{made_up_loss}.py'
    loss = Config.fromfile(path).model.roi_head.bbox_head.loss_cls
    settings = {
        'MadeUpEqualizationLoss': {'frequency_threshold': 0.0},
        'MadeUpGroupLoss': {'bin_edges': (3,)},
    }
    assert loss == {
        'type': made_up_loss,
        'num_classes': 4,
        **settings[made_up_loss],
    }


@pytest.mark.parametrize(
    'loss', ['NoLoss', 'FocalLoss', 'DenseEqualizationLoss', 'ResNet']
)
def test_other_losses_raise(loss, project):
    with pytest.raises(LongTailError, match=f'^{loss}: no registered'):
        write(loss)
    assert not (project / f'data_{loss}.py').exists()


@pytest.mark.parametrize('scope', ['', 'mmdet.'])
def test_types_are_compared_with_and_without_scope(scope, project):
    config = Config.fromfile('tiny.py')
    head = config.model.roi_head.bbox_head
    head.loss_cls.type = f'{scope}CrossEntropyLoss'
    for loader in (config.train_dataloader, config.val_dataloader):
        for step in loader.dataset.pipeline:
            step.type = scope + step.type
    config.dump('scoped.py')
    path = write('softmax', base=['scoped.py'], scale=(32, 48))
    assert 'loss_cls' not in path.read_text()
    config = Config.fromfile(path)
    pipeline = config.val_dataloader.dataset.pipeline
    assert [step.scale for step in pipeline if 'scale' in step] == [(32, 48)]


def test_imports_of_the_base_stay(project, monkeypatch):
    monkeypatch.syspath_prepend(project)
    (project / 'own_module.py').write_text('')
    text = (project / 'tiny.py').read_text()
    text = text.replace("['mmdet_longtail']", "['own_module']")
    (project / 'own.py').write_text(text)
    imports = Config.fromfile(write('eql', base=['own.py'])).custom_imports
    assert imports.imports == ['own_module', 'mmdet_longtail']

"""Checkpoints of three generations, and errors of one line."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.structures import Checkpoint, ClassStatistics
from mmdet_longtail.structures.carried_config import trusted_configs

DATA = Path(__file__).parents[1] / 'data'
CLASSES = ('disc', 'square')
STATISTICS = ClassStatistics(CLASSES, [1, 2], [3, 2], 5, 2, 'train.json')


class Classifier(nn.Module):
    """One layer by the name that the files have."""

    def __init__(self, num_columns=3):
        super().__init__()
        self.fc_cls = nn.Linear(2, num_columns)


@pytest.mark.parametrize('name', ['ddp', 'mmdet2', 'ema'])
def test_old_checkpoints(name):
    """The averaged weights of EMAHook are all 1, the trained ones all 0."""
    path = DATA / f'{name}.pth'
    assert path.stat().st_size < 20_000
    checkpoint = Checkpoint.load(path)
    assert set(checkpoint.weights) == {'fc_cls.weight', 'fc_cls.bias'}
    assert all((value == 1).all() for value in checkpoint.weights.values())
    assert checkpoint.classes == CLASSES
    assert checkpoint.require_config().model.type == 'FasterRCNN'
    assert checkpoint.source == str(path)
    has_statistics = name != 'mmdet2'
    assert (checkpoint.class_statistics is not None) == has_statistics
    if has_statistics:
        assert checkpoint.class_statistics == STATISTICS
    model = Classifier()
    checkpoint.load_into(model)
    assert (model.fc_cls.weight == 1).all()


def test_mmengine_saves_averaged_weights_as_this_file_has_them():
    """EMAHook itself writes the layout of tests/data/ema.pth."""
    from types import SimpleNamespace

    from mmengine.hooks import EMAHook

    hook = EMAHook()
    hook.before_run(SimpleNamespace(model=Classifier()))
    for parameter in hook.src_model.parameters():
        parameter.data.fill_(0)
    for parameter in hook.ema_model.module.parameters():
        parameter.data.fill_(1)
    content = dict(state_dict=hook.src_model.state_dict())
    hook.before_save_checkpoint(None, content)
    stored = torch.load(DATA / 'ema.pth', weights_only=True)
    for key in ('state_dict', 'ema_state_dict'):
        assert content[key].keys() == stored[key].keys()
        for name, value in content[key].items():
            assert torch.equal(value, stored[key][name])


def test_weights_are_those_of_the_content():
    content = dict(state_dict={'module.a': torch.ones(1)})
    checkpoint = Checkpoint.of(content)
    checkpoint.weights['b'] = torch.ones(1)
    assert set(content['state_dict']) == {'a', 'b'}
    bare = {'a': torch.ones(1)}
    assert Checkpoint.of(bare).weights is bare
    assert Checkpoint.of(bare).classes is None
    assert Checkpoint.of(bare).config is None


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_weights_that_are_not_finite(value):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 2)
            self.register_buffer('count', torch.ones(1, dtype=torch.int64))

    weights = Net().state_dict()
    # A loss has nan before it knows the counts.
    weights['bbox_head.loss_cls.tail_weight'] = torch.full((3,), torch.nan)
    Checkpoint(weights).check_weights(Net())
    weights['fc.bias'][1] = value
    weights['fc.running_mean'] = torch.tensor([value]).half()
    checkpoint = Checkpoint(weights, source='a.pth')
    for action in (checkpoint.check_weights, checkpoint.load_into):
        with pytest.raises(LongTailError) as error:
            action(Net())
        assert str(error.value).startswith('a.pth: 2 of 5 weights')
        assert 'the first is fc.bias' in str(error.value)


def test_save_and_load(tmp_path):
    path = tmp_path / 'folder' / 'out.pth'
    weights = {'a': torch.arange(3.0)}
    meta = dict(cfg='a = 1\n', dataset_meta=dict(classes=CLASSES))
    Checkpoint(weights, meta, STATISTICS).save(path)
    loaded = Checkpoint.load(path)
    assert loaded.weights['a'].tolist() == [0, 1, 2]
    assert loaded.class_statistics == STATISTICS
    assert loaded.config.a == 1
    assert loaded.classes == CLASSES
    assert list(path.parent.iterdir()) == [path]


def test_the_returned_config_is_a_copy():
    checkpoint = Checkpoint({}, dict(cfg='a = dict(b=1)\n'))
    checkpoint.require_config().a.b = 2
    assert checkpoint.config.a.b == 1


def test_a_config_runs_only_if_it_is_trusted(tmp_path):
    proof = tmp_path / 'proof'
    text = f"a = open({str(proof)!r}, 'w').name\n"
    content = dict(state_dict={}, meta=dict(cfg=text))
    assert Checkpoint.of(content).classes is None
    with pytest.raises(LongTailError, match=r'line 1.*--trust-config'):
        Checkpoint.of(content).require_config()
    assert not proof.exists()
    with trusted_configs():
        assert Checkpoint.of(content).require_config().a == str(proof)
    assert proof.exists()
    with pytest.raises(LongTailError):
        Checkpoint.of(content).require_config()


@pytest.mark.parametrize(
    'config',
    [
        dict(custom_imports=dict(imports=['made_up'])),
        dict(custom_imports=dict(imports='made_up')),
        dict(custom_imports=dict(imports=['mmdet_longtail.__main__'])),
        dict(model=dict(type='made_up.run')),
        dict(model=dict(type='made_up')),
        dict(model=dict(neck=[dict(type='os.system', command='')])),
        dict(model=dict(type='mmengine.load', file='a.pkl')),
        dict(model=dict(type='mmengine.Config.fromfile', filename='a.py')),
        dict(model=dict(type='torch.hub.load')),
        dict(optim_wrapper=dict(constructor='made_up.run')),
        dict(runner_type='made_up.run'),
        dict(default_scope='made_up'),
        dict(model=dict(_scope_='made_up')),
    ],
    ids=str,
)
def test_code_of_others_is_neither_imported_nor_called(
    config, tmp_path, monkeypatch
):
    proof = tmp_path / 'proof'
    module = f"open({str(proof)!r}, 'w')\ndef run(**kwargs): pass\n"
    (tmp_path / 'made_up.py').write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    text = Config(config).pretty_text
    with pytest.raises(LongTailError, match='--trust-config'):
        Checkpoint({}, dict(cfg=text)).require_config()
    assert not proof.exists()


def test_code_of_others_is_imported_if_it_is_trusted(tmp_path, monkeypatch):
    (tmp_path / 'trusted_module.py').write_text('')
    monkeypatch.syspath_prepend(tmp_path)
    text = "custom_imports = dict(imports=['trusted_module'])\n"
    with trusted_configs():
        Checkpoint({}, dict(cfg=text)).require_config()
    assert 'trusted_module' in sys.modules


@pytest.mark.parametrize(
    'model',
    [
        'FasterRCNN',
        'mmdet.FasterRCNN',
        'mmdet.models.detectors.FasterRCNN',
        'mmdet.models.detectors.faster_rcnn.FasterRCNN',
        'mmdet_longtail.models.losses.EqualizationLoss',
        'torch.optim.SGD',
        'torch.optim.sgd.SGD',
        'mmpretrain.ConvNeXt',
        'RandomBrightnessContrast',
    ],
)
def test_names_of_registered_classes_are_accepted(model):
    text = Config(dict(model=dict(type=model))).pretty_text
    config = Checkpoint({}, dict(cfg=text)).require_config()
    assert config.model.type == model


def test_classes_are_compared():
    checkpoint = Checkpoint.load(DATA / 'ddp.pth')
    checkpoint.check_classes(None, 'the dataset')
    checkpoint.check_classes(CLASSES, 'the dataset')
    checkpoint.check_classes(('disc', 'sqare'), 'the dataset')  # LVIS's typo
    with pytest.raises(LongTailError, match=r"class 0 is 'disc' in .*ddp.pth"):
        checkpoint.check_classes(CLASSES[::-1], 'the dataset')


def broken_file(tmp_path):
    (tmp_path / 'half.pth').write_bytes((DATA / 'ddp.pth').read_bytes()[:1000])
    return Checkpoint.load(tmp_path / 'half.pth')


def no_weights(tmp_path):
    torch.save([1], tmp_path / 'list.pth')
    return Checkpoint.load(tmp_path / 'list.pth')


def broken_statistics(tmp_path):
    return Checkpoint.of(dict(state_dict={}, class_statistics=dict(a=1)))


@pytest.mark.parametrize(
    ('action', 'message'),
    [
        (lambda _: Checkpoint.load('no.pth'), 'no.pth: no such checkpoint'),
        (broken_file, 'half.pth: not a checkpoint that can be read'),
        (no_weights, 'list.pth: not a checkpoint of a model'),
        (broken_statistics, 'the checkpoint: not class statistics'),
        (
            lambda _: Checkpoint({}, dict(cfg='no config')).config,
            'the checkpoint: the config in it is not Python',
        ),
        (
            lambda _: Checkpoint({}).require_config('give CONFIG'),
            'contains no config (meta.cfg); give CONFIG',
        ),
        (
            lambda _: Checkpoint(
                {},
                dict(cfg="custom_imports = dict(imports=['mmdet.no_such'])"),
            ).require_config(),
            'imports a module that is not installed (Failed to import '
            'mmdet.no_such)',
        ),
        (
            lambda _: Checkpoint({}).load_into(Classifier()),
            'lacks 2 weights of the model, such as fc_cls.weight',
        ),
        (
            lambda _: Checkpoint(Classifier(4).state_dict()).load_into(
                Classifier()
            ),
            'fc_cls.weight is (4, 2), but (3, 2) in the model',
        ),
    ],
)
def test_errors_are_one_line(action, message, tmp_path):
    with pytest.raises(LongTailError, match=re.escape(message)) as caught:
        action(tmp_path)
    assert '\n' not in str(caught.value)

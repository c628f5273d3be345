"""Every mistake in a config of the package's classes is one line."""

import inspect
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pytest
from hook_runs import config_of, runner_of
from loss_cases import CASES
from masks import make_mask_data
from mmdet import registry as registries
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config, ConfigDict
from mmengine.dataset import DefaultSampler
from mmengine.registry import init_default_scope
from tiny import CLASS_NAMES

from mmdet_longtail.apis.runner import failures_explained
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.losses import EqualizationLoss
from mmdet_longtail.utils.arguments import (
    BuildError,
    Parameters,
    fits,
    in_words,
)

BBOX_HEAD = dict(
    in_channels=4, fc_out_channels=4, roi_feat_size=2, num_classes=4
)
VALUES = ['text', None, -1, 0, [], {'a': {'b': 1}}, float('nan'), True]


def registered():
    """List the registry and the name of each class of the package."""
    return [
        (registry, name)
        for registry in vars(registries).values()
        if isinstance(registry, registries.Registry)
        and registry is not registries.RUNNERS
        for name, kind in registry.module_dict.items()
        if kind.__module__.startswith('mmdet_longtail.')
    ]


REGISTERED = registered()


@pytest.fixture(scope='module')
def right(tmp_path_factory):
    """Arguments with which each class can be built."""
    init_default_scope('mmdet')
    folder = make_mask_data(tmp_path_factory.mktemp('data') / 'data')
    masks = Config.fromfile(folder / 'masks.py')
    runner = runner_of(folder, folder / 'run', hook=None)
    config = config_of(folder, folder / 'run', hook=None)
    files = dict(
        data_root=str(folder),
        ann_file='train.json',
        data_prefix=dict(img='images'),
        metainfo=dict(classes=CLASS_NAMES),
        pipeline=[],
        serialize_data=False,  # which collects garbage each time
    )
    dataset = DATASETS.build(dict(type='AnnotationFileDataset', **files))
    config.train_dataloader.dataset.serialize_data = False
    loop = dict(runner=runner, dataloader=config.train_dataloader)
    model = masks.model.to_dict()
    cascade = dict(
        num_stages=1,
        stage_loss_weights=[1.0],
        bbox_roi_extractor=model['roi_head']['bbox_roi_extractor'],
        bbox_head=dict(BBOX_HEAD, type='LongTailShared2FCBBoxHead'),
    )
    convolutions = BBOX_HEAD | dict(conv_out_channels=4)
    found = {
        name: dict(num_classes=4) | case.settings
        for name, case in CASES.items()
    }
    found |= {
        'AnnotationFileDataset': files,
        'SeededDataset': dict(dataset=dataset),
        'SeededBatchSampler': dict(
            sampler=DefaultSampler(dataset), batch_size=2, seed=0
        ),
        'InstanceCountTailWeight': dict(instance_threshold=10),
        'RepeatFactorSampler': dict(dataset=dataset, oversample_thr=0.5),
        'InstanceAwareRepeatFactorSampler': dict(
            dataset=dataset, oversample_thr=0.5
        ),
        'ClassAwareImageSampler': dict(dataset=dataset),
        'TrainOnlyHook': dict(trainable=['backbone']),
        'ResumableEpochBasedTrainLoop': loop | dict(max_epochs=1),
        'ResumableIterBasedTrainLoop': loop | dict(max_iters=1),
        'BackgroundIgnoringAssigner': dict(pos_iou_thr=0.5, neg_iou_thr=0.5),
        'ScaledLinear': dict(in_features=2, out_features=2),
        'ScaledNormedLinear': dict(in_features=2, out_features=2),
        'OptionalMaskFCNMaskHead': dict(
            num_convs=1, in_channels=4, conv_out_channels=4, num_classes=4
        ),
        'LongTailDeformableDETRHead': dict(
            num_classes=4,
            embed_dims=4,
            num_pred_layer=1,
            share_pred_layer=True,
            loss_cls=dict(type='FocalLoss', use_sigmoid=True),
        ),
        'LongTailCascadeRoIHead': cascade,
        'LongTailHybridTaskCascadeRoIHead': cascade,
        'MaskTTAModel': dict(module=model | dict(data_preprocessor=None)),
        'LongTailBBoxHead': dict(
            in_channels=4, roi_feat_size=2, num_classes=4
        ),
        'LongTailShared2FCBBoxHead': BBOX_HEAD,
        'LongTailShared4Conv1FCBBoxHead': convolutions,
        'LongTailConvFCBBoxHead': BBOX_HEAD | dict(num_shared_fcs=1),
        'NearestClassMeanConvFCBBoxHead': BBOX_HEAD | dict(num_shared_fcs=1),
        'NearestClassMeanShared2FCBBoxHead': BBOX_HEAD,
        'NearestClassMeanShared4Conv1FCBBoxHead': convolutions,
    }
    return found


def fresh(config):
    """Copy the dicts, which some classes change."""
    if isinstance(config, dict):
        return ConfigDict({k: fresh(v) for k, v in config.items()})
    return config


@pytest.mark.parametrize(
    ('registry', 'name'), REGISTERED, ids=[name for _, name in REGISTERED]
)
def test_mistakes(registry, name, right):
    """A value builds, or is a LongTailError; a wrong name is an error."""

    def build(**config):
        return registry.build(fresh({'type': name} | config))

    good = right.get(name, {})
    if not name.startswith(('Federated', 'IgnoreRegions')):  # of LVIS
        build(**good)
    parameters = Parameters(registry.get(name))
    for key in {*parameters.required} & {*good}:
        rest = {k: v for k, v in good.items() if k != key}
        with pytest.raises(LongTailError, match=f'{name}: {key} is missing'):
            build(**rest)
    if not parameters.takes_any:
        with pytest.raises(LongTailError, match=r"'wrong_name'.*_delete_"):
            build(**good, wrong_name=1)
    for key in parameters.named:
        for value in VALUES:
            try:
                build(**good | {key: value})
            except LongTailError as error:
                assert '\n' not in str(error)
    misspelled = f'{name[:-2]}{name[-1]}'
    with (
        pytest.raises(LongTailError, match=f"did you mean .*'{name}'"),
        failures_explained(Config()),
    ):
        build(type=misspelled)


def test_a_misspelled_type_lists_the_names_of_the_package():
    with (
        pytest.raises(LongTailError, match=r'_longtail has .*RoIFocalLoss'),
        failures_explained(Config()),
    ):
        MODELS.build(dict(type='NothingLikeIt'))


NUMBERS = Sequence[float]


@pytest.mark.parametrize(
    ('value', 'hint', 'expected'),
    [
        (1, float, True),
        (1.0, int, False),
        (True, int, False),
        (1, bool, False),
        ('1', float, False),
        (None, float | None, True),
        ('a', Sequence[str], False),
        (['a'], Sequence[str], True),
        (('a', 1), Sequence[str], False),
        ({'a': 1}, Sequence[str], False),
        (np.array([1.0, 2.0]), NUMBERS, True),
        ([0.1, 5.0], tuple[float, float] | None, True),
        (('bbox', 'segm'), str | list[str], True),
        (ConfigDict(type='A'), dict[str, Any] | None, True),
        ('A', dict[str, Any] | None, False),
        ('a', Literal['a', 'b'], True),
        (object(), Any, True),
    ],
)
def test_fits(value, hint, expected):
    assert fits(value, hint) is expected


def test_in_words():
    assert in_words(int | None) == 'an integer or None'
    assert in_words(Sequence[str]) == 'a list, each item a string'


@pytest.mark.parametrize(
    ('config', 'words'),
    [
        (
            dict(use_sigmoid=False, num_classes=4),
            "loss_cls=dict(_delete_=True, type='EqualizationLoss', "
            'num_classes=4)',
        ),
        (dict(use_sigmoid=False), "type='EqualizationLoss', num_classes=...)"),
        (dict(num_class=4), "did you mean 'num_classes'?"),
        (dict(tail_ratio=0.3), 'num_classes is missing'),
        (dict(num_classes='4'), "num_classes is '4', expected an integer"),
        (dict(num_classes=4, tail_weight='x'), 'expected a dict or None'),
    ],
)
def test_a_loss_inside_mmdets_head(config, words):
    """The error is the loss's, whoever builds the loss."""
    loss_cls = dict(config, type='EqualizationLoss')
    head = dict(BBOX_HEAD, type='Shared2FCBBoxHead', loss_cls=loss_cls)
    with pytest.raises(LongTailError) as caught:
        MODELS.build(head)
    assert words in str(caught.value)


@pytest.mark.parametrize('head', ['Shared2FCBBoxHead', 'DoubleConvFCBBoxHead'])
@pytest.mark.parametrize(
    ('loss_cls', 'found'),
    [
        ('EqualizationLoss', "'EqualizationLoss'"),
        (7, '7'),
        (dict(num_classes=4), r"\{'num_classes': 4\}"),
    ],
)
def test_a_loss_that_is_no_config(head, loss_cls, found):
    config = dict(BBOX_HEAD, type=head, loss_cls=loss_cls)
    with (
        pytest.raises(
            LongTailError,
            match=f'{head}: loss_cls is {found}, expected a dict',
        ),
        failures_explained(Config()),
    ):
        MODELS.build(config)


def test_a_class_of_mmdet_inside_ours():
    head = dict(BBOX_HEAD, type='LongTailShared2FCBBoxHead', loss_cls=None)
    head['loss_cls'] = dict(type='CrossEntropyLoss', use_sigmoyd=False)
    with pytest.raises(LongTailError, match=r'CrossEntropyLoss.*use_sigmoid'):
        MODELS.build(head)
    head['loss_cls'] = dict(type='FocalLoss', use_sigmoid=False)
    with pytest.raises(BuildError, match='AssertionError'):
        MODELS.build(head)


def test_a_subclass_may_take_other_arguments():
    class Mine(EqualizationLoss):
        def __init__(self, num_classes, mine):
            super().__init__(num_classes)
            self.mine = mine

    assert Mine(4, 'x').mine == 'x'
    assert list(inspect.signature(Mine).parameters) == ['num_classes', 'mine']
    assert EqualizationLoss(4, 0.1).frequency_threshold == 0.1
    with pytest.raises(LongTailError, match='frequency_threshold is'):
        EqualizationLoss(4, 'x')

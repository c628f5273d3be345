"""FeatureCacheHook: cached stages equal those that run the whole detector."""

import json
from collections import namedtuple
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from cached_runs import (
    ALL_ROIS,
    CASCADE,
    CASCADE_ONLY,
    largest_difference,
    stage_runner,
    train_stage,
)
from filelock import FileLock
from hook_runs import BAGS, EQL, runner_of, saved_weights, weights_of
from mmengine.runner import Runner
from ranks import run_on_two_ranks
from tiny import make_data

from mmdet_longtail.datasets.roi_features import FeatureCache
from mmdet_longtail.engine.hooks import FeatureCacheHook, feature_cache_hook
from mmdet_longtail.engine.hooks.feature_cache_hook import image_datasets
from mmdet_longtail.engine.hooks.preemption_hook import (
    EXIT_STATUS,
    PreemptionHook,
)
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.utils.ragged import RaggedWriter

NOT_RANDOM = dict(num_samples=1)
NO_VALIDATION = dict(val_cfg=None, val_dataloader=None, val_evaluator=None)
ALL_OTHERS = dict(BAGS, others_ratio=1e9)
SEESAW = dict(_delete_=True, type='SeesawLoss', num_classes=4)
RESUMABLE = {'runner_type': 'mmdet.ResumableRunner'}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp('seven') / 'shapes', num_train=7)


@pytest.fixture
def project(data, tmp_path):
    """A folder with the checkpoint of a base."""
    runner_of(data, tmp_path / 'base', None).train()
    return tmp_path


def caches(folder, split):
    found = (folder / 'feature_cache').glob(f'{split}-*')
    return sorted(path for path in found if path.is_dir())


def assert_same(data, project, loss_cls=None, cache=NOT_RANDOM, **overrides):
    """Assert that a cached stage has the weights of one that is not."""
    overrides = ALL_ROIS | NO_VALIDATION | overrides
    own, cached = (
        train_stage(data, project, name, loss_cls, with_cache, **overrides)
        for name, with_cache in (('own', None), ('cached', cache))
    )
    assert largest_difference(own, cached) < 1e-6


@pytest.mark.parametrize('loss_cls', [None, EQL, ALL_OTHERS, SEESAW])
def test_weights_are_those_of_the_whole_detector(data, project, loss_cls):
    assert_same(data, project, loss_cls)


@pytest.mark.parametrize(
    'sampler',
    [
        dict(_delete_=True, type='RepeatFactorSampler', oversample_thr=0.9),
        dict(_delete_=True, type='ClassAwareImageSampler'),
    ],
)
def test_samplers_of_images(data, project, sampler):
    assert_same(data, project, **{'train_dataloader.sampler': sampler})


def test_repeated_and_concatenated_images(data, project):
    config = stage_runner(data, project, 'x').cfg
    part = config.train_dataloader.dataset
    wrapped = dict(
        type='ConcatDataset',
        datasets=[
            dict(part, indices=3),
            dict(type='RepeatDataset', times=2, dataset=part),
        ],
    )
    assert_same(
        data,
        project,
        **{
            'train_dataloader.dataset': dict(wrapped, _delete_=True),
            'train_dataloader.num_workers': 1,
        },
    )


@pytest.mark.parametrize(
    ('runner', 'sampler', 'num_workers'),
    [
        ('Runner', 'DefaultSampler', 0),
        ('Runner', 'DefaultSampler', 1),
        ('Runner', 'InfiniteSampler', 2),
        ('mmdet.ResumableRunner', 'DefaultSampler', 0),
        ('mmdet.ResumableRunner', 'DefaultSampler', 1),
    ],
)
def test_iterations_instead_of_epochs(
    data, project, runner, sampler, num_workers
):
    loop = dict(
        _delete_=True, type='IterBasedTrainLoop', max_iters=6, val_interval=6
    )
    assert_same(
        data,
        project,
        train_cfg=loop,
        runner_type=runner,
        **{
            'default_hooks.checkpoint.by_epoch': False,
            'log_processor': dict(by_epoch=False),
            'train_dataloader.sampler': dict(type=sampler, shuffle=True),
            'train_dataloader.num_workers': num_workers,
        },
    )


def test_random_losses_under_the_resumable_runner(data, project):
    """Its iterations are seeded, so draws of the loss are equal, too."""
    assert_same(data, project, dict(BAGS, others_ratio=1.0), **RESUMABLE)


def test_averaged_weights_and_a_scaled_classifier(data, project):
    ema = dict(type='EMAHook', momentum=0.1)
    head = 'model.roi_head.bbox_head.cls_predictor_cfg'
    trainable = ['roi_head.bbox_head.fc_cls.scale']
    assert_same(
        data,
        project,
        custom_hooks=[ema],
        **{
            head: dict(type='ScaledLinear'),
            'default_hooks.train_only.trainable': trainable,
            'optim_wrapper.optimizer.lr': 5.0,
        },
    )


def test_restarted_classifier(data, project):
    hook = dict(type='RestartClassifierHook')
    assert_same(data, project, **{'default_hooks.restart': hook})


def test_image_level_labels(data, project):
    """EQL spares a tail class only in images that were not checked for it."""
    content = json.loads((data / 'train.json').read_text())
    for image in content['images']:
        image['neg_category_ids'] = [3] if image['id'] % 2 else []
        image['not_exhaustive_category_ids'] = []
    path = project / 'federated.json'
    path.write_text(json.dumps(content))
    assert_same(
        data,
        project,
        EQL,
        **{
            'train_dataloader.dataset.type': 'FederatedAnnotationFileDataset',
            'train_dataloader.dataset.ann_file': str(path),
            'model.roi_head.type': 'LongTailStandardRoIHead',
            'model.roi_head.bbox_head.type': 'LongTailShared2FCBBoxHead',
        },
    )


@pytest.fixture
def cascade(data, tmp_path):
    """A folder with the checkpoint of a cascade."""
    config = stage_runner(data, tmp_path, 'x', None).cfg
    rcnn = config.model.train_cfg.rcnn
    rcnn.sampler.num = 10**6
    overrides = CASCADE | {'model.train_cfg.rcnn': [rcnn, rcnn]}
    runner_of(data, tmp_path / 'base', None, **overrides).train()
    return tmp_path, overrides | {'default_hooks.train_only': CASCADE_ONLY}


def test_cascade(data, cascade):
    folder, overrides = cascade
    own, cached = (
        train_stage(data, folder, name, None, with_cache, **overrides)
        for name, with_cache in (('own', None), ('cached', NOT_RANDOM))
    )
    assert largest_difference(own, cached) < 1e-6


def detections_of(prefix):
    return json.loads(Path(f'{prefix}.bbox.json').read_text())


def assert_tested_alike(data, folder, loss_cls=None, **overrides):
    """Assert that a validation has the detections of a test, in order."""
    key = 'val_evaluator.outfile_prefix'
    train_stage(
        data, folder, 'run', loss_cls, {}, **overrides, **{key: f'{folder}/a'}
    )
    overrides |= {
        'load_from': str(folder / 'run' / 'epoch_3.pth'),
        'test_evaluator.outfile_prefix': f'{folder}/b',
    }
    stage_runner(data, folder, 'test', loss_cls, **overrides).test()
    found = detections_of(folder / 'a')
    assert len(found) > 10
    assert found == detections_of(folder / 'b')


@pytest.mark.parametrize(
    'head',
    [
        dict(reg_class_agnostic=True),
        dict(reg_class_agnostic=False),
        dict(with_reg=False),
        dict(type='ConvFCBBoxHead', num_cls_fcs=1, num_reg_fcs=1),
        dict(type='ConvFCBBoxHead', num_shared_fcs=1, with_avg_pool=True),
        dict(
            _delete_=True,
            type='BBoxHead',
            with_avg_pool=True,
            roi_feat_size=3,
            in_channels=16,
            num_classes=4,
        ),
    ],
)
def test_a_validation_equals_a_test(data, tmp_path, head):
    overrides = {'model.roi_head.bbox_head': head}
    runner_of(data, tmp_path / 'base', None, **overrides).train()
    assert_tested_alike(data, tmp_path, **overrides)


def test_a_validation_of_bags_in_batches(data, project):
    assert_tested_alike(
        data,
        project,
        BAGS,
        **{'val_dataloader.batch_size': 2, 'test_dataloader.batch_size': 2},
    )


def test_a_validation_of_a_cascade(data, cascade):
    folder, overrides = cascade
    assert_tested_alike(data, folder, **overrides)


MASKS = {
    'model.type': 'MaskRCNN',
    'model.roi_head.mask_roi_extractor': dict(
        type='SingleRoIExtractor',
        roi_layer=dict(type='RoIAlign', output_size=4, sampling_ratio=1),
        out_channels=16,
        featmap_strides=[4, 8, 16, 32],
    ),
    'model.roi_head.mask_head': dict(
        type='FCNMaskHead',
        num_convs=1,
        in_channels=16,
        conv_out_channels=8,
        num_classes=4,
        loss_mask=dict(type='CrossEntropyLoss', use_mask=True),
    ),
    'model.train_cfg.rcnn.mask_size': 8,
    'model.test_cfg.rcnn.mask_thr_binary': 0.5,
}


@pytest.mark.parametrize('metrics', [['bbox'], ['bbox', 'segm']])
def test_masks(data, tmp_path, messages, metrics):
    """Masks need the images, so a validation of them is not cached."""
    config = stage_runner(data, tmp_path, 'x').cfg
    pipeline = config.train_dataloader.dataset.pipeline
    pipeline[1].with_mask = True
    overrides = MASKS | {
        'train_dataloader.dataset.pipeline': pipeline,
        'val_evaluator.metric': metrics,
        'test_evaluator.metric': metrics,
    }
    runner_of(data, tmp_path / 'base', None, **overrides).train()
    own = {k: v for k, v in overrides.items() if 'evaluator' not in k}
    assert_same(data, tmp_path, **own)
    assert_tested_alike(data, tmp_path, **overrides)
    assert bool(caches(tmp_path, 'val')) == (metrics == ['bbox'])


def test_half_precision_and_several_views(data, project):
    flip = dict(type='RandomFlip', prob=0.5)
    config = stage_runner(data, project, 'x').cfg
    pipeline = config.train_dataloader.dataset.pipeline
    pipeline.insert(-1, flip)
    cache = dict(num_views=3, num_samples=2, dtype='float16')
    train_stage(
        data,
        project,
        'run',
        EQL,
        cache,
        **{'train_dataloader.dataset.pipeline': pipeline},
    )
    [folder] = caches(project, 'train')
    cache = FeatureCache(folder)
    views = [cache.read('features', 0, view) for view in range(3)]
    assert views[0].dtype == np.float16
    shapes = {view.shape for view in views}
    assert len(shapes) > 1 or not all(
        np.array_equal(views[0], view) for view in views[1:]
    )


# -- the folder of a cache ---------------------------------------------------


def names_of(folder):
    return {
        path.name
        for split in ('train', 'val')
        for path in caches(folder, split)
    }


def test_a_cache_is_shared_by_what_has_the_same_features(
    data, project, messages
):
    train_stage(data, project, 'run', EQL, {})
    names = names_of(project)
    assert len(names) == 2
    runner = messages(
        stage_runner(
            data,
            project,
            'other',
            BAGS,
            {},
            randomness=dict(seed=3),
            **{
                'train_dataloader.sampler': dict(
                    _delete_=True, type='ClassAwareImageSampler'
                ),
                'model.test_cfg.rcnn.score_thr': 0.01,
                'model.roi_head.bbox_head.type': 'LongTailShared2FCBBoxHead',
            },
        )
    )
    runner.train()
    assert names_of(project) == names
    assert messages.text().count('are read from') == 2


def name_of_cache(data, project, cache=None, **overrides):
    """Return the name of the training cache, which is not written."""
    runner = stage_runner(data, project, 'x', EQL, cache or {}, **overrides)
    dataset = runner.train_loop.dataloader.dataset
    runner.load_or_resume()
    [hook] = [h for h in runner.hooks if isinstance(h, FeatureCacheHook)]
    return hook._folder(runner, 'train', image_datasets(dataset, 'train')).name


def test_another_cache_for_other_features(data, project):
    base = project / 'base' / 'epoch_1.pth'
    content = torch.load(base, weights_only=False)
    content['state_dict']['backbone.conv1.weight'][0, 0, 0, 0] += 1
    torch.save(content, project / 'other.pth')
    annotations = json.loads((data / 'train.json').read_text())
    annotations['annotations'][0]['bbox'][0] += 1
    (project / 'other.json').write_text(json.dumps(annotations))
    dataset = 'train_dataloader.dataset'
    changes = [
        {},
        {'load_from': str(project / 'other.pth')},
        {f'{dataset}.ann_file': str(project / 'other.json')},
        {f'{dataset}.indices': 5},
        {'model.train_cfg.rcnn.sampler.num': 5},
        dict(cache=dict(num_views=2)),
        dict(cache=dict(num_samples=2)),
        dict(cache=dict(max_negatives=3)),
        dict(cache=dict(dtype='float16')),
        dict(cache=dict(seed=1)),
    ]
    names = [name_of_cache(data, project, **change) for change in changes]
    assert len({*names}) == len(changes)
    assert name_of_cache(data, project) == names[0]


def test_what_an_interrupted_run_left_is_written_again(
    data, project, monkeypatch
):
    runner = stage_runner(data, project, 'run', EQL, {})
    add, calls = RaggedWriter.add, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) > 20:
            raise KeyboardInterrupt
        add(*args)

    with monkeypatch.context() as context:
        context.setattr(RaggedWriter, 'add', interrupted)
        with pytest.raises(KeyboardInterrupt):
            runner.train()
    assert not names_of(project)
    train_stage(data, project, 'again', EQL, {})
    [folder] = caches(project, 'train')
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    # A killed process removes nothing.
    folder.rename(f'{folder}.tmp')
    next(Path(f'{folder}.tmp').iterdir()).write_bytes(b'half')
    train_stage(data, project, 'third', EQL, {})
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == whole
    assert not Path(f'{folder}.tmp').exists()


@pytest.mark.parametrize('is_waiting', [False, True])
def test_a_preempted_run_does_not_finish_the_cache(data, project, is_waiting):
    checkpoint = dict(type='WholeCheckpointHook', interval=1)
    runner = stage_runner(
        data,
        project,
        'run',
        EQL,
        {},
        custom_hooks=[dict(type='PreemptionHook')],
        **{'default_hooks.checkpoint': checkpoint},
    )
    [hook] = [h for h in runner.hooks if isinstance(h, PreemptionHook)]
    hook.is_preempted = True
    name = name_of_cache(data, project)
    folder = project / 'feature_cache'
    folder.mkdir(exist_ok=True)
    lock = FileLock(folder / f'{name}.lock')
    with lock if is_waiting else nullcontext():
        with pytest.raises(SystemExit) as caught:
            runner.train()
    hook.after_run(runner)
    assert caught.value.code == EXIT_STATUS
    assert not names_of(project)


def test_a_run_that_writes_the_cache_equals_one_that_reads_it(data, project):
    cache = dict(num_views=2, num_samples=3)
    first, second = (
        train_stage(data, project, name, BAGS, cache) for name in ('a', 'b')
    )
    assert largest_difference(first, second) == 0


def test_a_disk_that_is_too_small(data, project, monkeypatch):
    usage = namedtuple('usage', 'total used free')
    monkeypatch.setattr(
        feature_cache_hook.shutil, 'disk_usage', lambda _: usage(9, 9, 3000)
    )
    with pytest.raises(LongTailError, match='take about') as error:
        train_stage(data, project, 'run', EQL, {})
    assert "3e-06 GB are free; set dtype='float16'" in str(error.value)
    assert '\n' not in str(error.value)
    assert not names_of(project)


def test_a_resumed_run(data, project):
    overrides = RESUMABLE | {'default_hooks.checkpoint.interval': 1}
    whole = train_stage(data, project, 'whole', BAGS, {}, **overrides)
    runner = stage_runner(data, project, 'run', BAGS, {}, **overrides)
    config = runner.cfg
    config.resume = True
    config.load_from = str(project / 'whole' / 'epoch_1.pth')
    resumed = Runner.from_cfg(config)
    resumed.train()
    assert largest_difference(whole, weights_of(resumed)) == 0


# -- negatives ---------------------------------------------------------------


def test_negatives_that_stand_for_all(data, project):
    cache = dict(num_samples=2)
    few = dict(num_samples=2, max_negatives=3)
    train_stage(data, project, 'all', EQL, cache, **ALL_ROIS)
    train_stage(data, project, 'few', EQL, few, **ALL_ROIS)
    one, other = map(FeatureCache, caches(project, 'train'))
    if one.read('features', 0).shape < other.read('features', 0).shape:
        one, other = other, one
    for image in range(7):
        whole, kept = (c.read('labels', image) for c in (one, other))
        assert (kept == 4).sum() == min(3, (whole == 4).sum())
        assert sorted(kept[kept < 4]) == sorted(whole[whole < 4])
        for sample in range(2):
            rows, few_rows = (
                c.read('rows', image, 0, sample, 2) for c in (one, other)
            )
            assert sorted(whole[rows]) == sorted(kept[few_rows])
            times = np.bincount(few_rows[kept[few_rows] == 4])
            times = times[times > 0]
            assert times.max() - times.min() <= 1


# -- what is not supported ---------------------------------------------------

OHEM = dict(
    _delete_=True,
    type='OHEMSampler',
    num=16,
    pos_fraction=0.5,
    neg_pos_ub=-1,
    add_gt_as_proposals=True,
)
HEAD = 'model.roi_head.bbox_head'


@pytest.mark.parametrize(
    'overrides, words',
    [
        (
            {'default_hooks.train_only': dict(type='SyncBuffersHook')},
            'nothing',
        ),
        (
            {'default_hooks.train_only.trainable': ['roi_head.bbox_head']},
            'fc_reg.weight trains',
        ),
        ({'model.train_cfg.rcnn.sampler': OHEM}, 'OHEMSampler samples'),
        (
            {f'{HEAD}.type': 'NearestClassMeanShared2FCBBoxHead'},
            'in its own way',
        ),
        ({'model.roi_head.type': 'DoubleHeadRoIHead'}, 'in its own way'),
    ],
)
def test_what_is_not_cached(data, project, overrides, words):
    if 'DoubleHead' in str(overrides):
        overrides |= {'model.roi_head.reg_roi_scale_factor': 1.3}
    with pytest.raises(LongTailError, match=words) as error:
        train_stage(data, project, 'run', None, {}, **overrides)
    assert '\n' not in str(error.value)


def test_a_cascade_whose_boxes_depend_on_the_classes(data, cascade):
    folder, overrides = cascade
    overrides[f'{HEAD}.reg_class_agnostic'] = False
    overrides['load_from'] = None
    with pytest.raises(LongTailError, match='depend on the class scores'):
        train_stage(data, folder, 'run', None, {}, **overrides)


@pytest.mark.parametrize(
    'arguments', [dict(num_views=0), dict(dtype='int8'), dict(seed=-1)]
)
def test_arguments_out_of_range(arguments):
    with pytest.raises(LongTailError, match=next(iter(arguments))):
        FeatureCacheHook(**arguments)


# -- ranks -------------------------------------------------------------------


def test_two_ranks(data, project):
    for cached in (False, True):
        run_on_two_ranks(_train_on_rank, str(data), str(project), cached)
    own, cached = (
        saved_weights(project / f'{n}0' / 'epoch_3.pth')
        for n in ('False', 'True')
    )
    assert largest_difference(own, cached) < 1e-6
    [folder] = caches(project, 'train')
    assert FeatureCache(folder).num_parts == 2


def _train_on_rank(rank, data, folder, is_cached):
    wrapper = dict(
        type='MMDistributedDataParallel',
        device_ids=None,
        broadcast_buffers=False,
    )
    train_stage(
        Path(data),
        Path(folder),
        f'{is_cached}{rank}',
        EQL,
        NOT_RANDOM if is_cached else None,
        launcher='pytorch',
        model_wrapper_cfg=wrapper,
        **ALL_ROIS,
    )

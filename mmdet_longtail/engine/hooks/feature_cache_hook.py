"""Training of a classifier from cached RoI features."""

import json
import shutil
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.datasets import MultiImageMixDataset
from mmdet.evaluation import CocoMetric, LVISMetric
from mmdet.registry import HOOKS
from mmengine.dataset import (
    DefaultSampler,
    InfiniteSampler,
    pseudo_collate,
)
from mmengine.dist import (
    broadcast_object_list,
    get_rank,
    get_world_size,
    is_main_process,
)
from mmengine.hooks import Hook
from mmengine.optim import AmpOptimWrapper
from mmengine.runner import BaseLoop, Runner
from mmengine.runner.amp import autocast
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, DataLoader

from mmdet_longtail.datasets.roi_features import (
    RECORD,
    FeatureCache,
    Proposals,
    SampledRoIs,
    format_metainfo,
    part_prefix,
)
from mmdet_longtail.datasets.seeded import SeededBatchSampler, SeededDataset
from mmdet_longtail.engine.cache_folder import (
    digest_features,
    settings_of_features,
    written_once,
)
from mmdet_longtail.engine.hooks.preemption_hook import exit_if_preempted
from mmdet_longtail.engine.hooks.train_only_hook import TrainOnlyHook
from mmdet_longtail.errors import check
from mmdet_longtail.evaluation.metrics import DetectionFileMetric
from mmdet_longtail.models.utils.bbox_heads import classifier_heads, unwrapped
from mmdet_longtail.models.utils.cached_classifier import reading_cached_rois
from mmdet_longtail.models.utils.roi_recorder import (
    check_cacheable,
    record_proposals,
    record_training,
    shares_features,
)
from mmdet_longtail.utils.checks import check_choice, check_numbers
from mmdet_longtail.utils.fileio import check_writable, write_atomic
from mmdet_longtail.utils.ragged import RaggedWriter
from mmdet_longtail.utils.registry import innermost
from mmdet_longtail.utils.replacing import replaced
from mmdet_longtail.utils.seeding import seed_all

VERSION = 1
SECONDS_PER_LOG = 10
EVALUATED = (CocoMetric, LVISMetric, DetectionFileMetric)


@HOOKS.register_module()
class FeatureCacheHook(Hook):
    """Train ``fc_cls`` of a frozen detector from cached RoI features.

    Backbone, neck, RPN and the layers before ``fc_cls`` run once per image
    and view, before the first iteration. The training then reads what
    ``fc_cls`` sees. Loss, sampler of the images, optimizer, schedule and the
    other hooks are those of the config. Checkpoints hold the whole detector.
    Put it beside the ``TrainOnlyHook`` of the stage::

        default_hooks = dict(feature_cache=dict(type='FeatureCacheHook'))

    A view is a pass of the training images through their pipeline, such as
    random flips. Of its RoIs, the sampler of the RoI head draws
    ``num_samples`` times. Each time an image is shown, one sample of one view
    is taken at random.

    Validations read proposals from a second cache, with equal results. Those
    that need masks, and metrics other than ``CocoMetric``, ``LVISMetric`` and
    those of this package, run the whole detector.

    A cache is a folder, written atomically. Its name is a hash of the frozen
    weights, the annotations, the pipeline and the settings. Runs with the same
    ones share it, and wait while another one writes it. Image files are not
    hashed: delete the cache where they change.

    Args:
        cache_dir (str, optional): Defaults to ``feature_cache`` beside the
            work directory, so that the runs of a sweep share it.
        num_views (int): Number of views. Defaults to 1.
        num_samples (int): RoI samples per view. Defaults to 4.
        max_negatives (int, optional): Number of background RoIs that are kept
            per image and view. A sample repeats them where it has more, so
            that the mean loss stays the same. Defaults to None, all.
        dtype (str): Of the features, 'float32' or 'float16'. Defaults to
            'float32'.
        seed (int): Random seed of views and samples. Defaults to 0.

    Raises:
        LongTailError: If anything but ``fc_cls`` trains, the RoI head is not
            supported, or the cache does not fit on the disk.
    """

    priority = 'VERY_LOW'

    def __init__(
        self,
        cache_dir: str | None = None,
        num_views: int = 1,
        num_samples: int = 4,
        max_negatives: int | None = None,
        dtype: str = 'float32',
        seed: int = 0,
    ) -> None:
        name = type(self).__name__
        counts = dict(num_views=num_views, num_samples=num_samples)
        if max_negatives is not None:
            counts['max_negatives'] = max_negatives
        check_numbers(name, '[1, inf)', **counts)
        check_numbers(name, '[0, inf)', seed=seed)
        check_choice(name, 'dtype', dtype, 'float32', 'float16')
        self.cache_dir = cache_dir
        self.num_views = num_views
        self.num_samples = num_samples
        self.max_negatives = max_negatives
        self.dtype = dtype
        self.seed = seed
        self._stack = ExitStack()

    def before_train(self, runner: Runner) -> None:
        """Write or find the caches, and let the training read them."""
        model = unwrapped(runner.model)
        freezing = [h for h in runner.hooks if isinstance(h, TrainOnlyHook)]
        check_trained(model, freezing)
        check_cacheable(model)
        self._use(runner, runner.train_loop, 'train', SampledRoIs, freezing)
        if isinstance(runner._val_loop, BaseLoop):
            unread = _unread_metric(model, runner.val_evaluator.metrics)
            if unread:
                runner.logger.info(
                    f'Validations run the whole detector, for {unread}'
                )
            else:
                self._use(runner, runner.val_loop, 'val', Proposals)
        self._stack.enter_context(reading_cached_rois(model))
        # A run that writes the cache equals one that finds it.
        seed_all(runner.seed, get_rank())

    def after_train(self, runner: Runner) -> None:
        """Let the detector read images again."""
        self._stack.close()

    def _use(
        self,
        runner: Runner,
        loop: Any,
        split: str,
        pipeline: Any,
        freezing: list[TrainOnlyHook] | None = None,
    ) -> None:
        """Let the datasets of a loop read the cache of their split."""
        datasets = image_datasets(loop.dataloader.dataset, split)
        folder = self._folder(runner, split, datasets)
        wait = partial(exit_if_preempted, runner)
        with written_once(folder, runner, wait) as unfinished:
            if unfinished is not None:
                self._write(runner, loop, split, datasets, unfinished)
        cache = FeatureCache(folder)
        start = 0
        for dataset in datasets:
            change = replaced(dataset, pipeline=pipeline(cache, start))
            self._stack.enter_context(change)
            start += len(dataset)
        # Reading is faster than the transfer from another process.
        self._stack.enter_context(replaced(loop.dataloader, num_workers=0))
        iterator = getattr(loop, 'dataloader_iterator', None)
        if iterator is not None:  # has started its workers already
            batches = loop.dataloader.batch_sampler
            if isinstance(batches, SeededBatchSampler):
                batches.start_at(0, 0)
            if isinstance(batches.sampler, InfiniteSampler):
                batches.sampler.indices = batches.sampler._indices_of_rank()
            loop.dataloader_iterator = type(iterator)(loop.dataloader)

    # -- the key ------------------------------------------------------------

    def _folder(self, runner: Runner, split: str, datasets: list[Any]) -> Path:
        """Return the folder of a split's cache; a collective."""
        settings = dict(
            version=VERSION,
            dtype=self.dtype,
            seed=self.seed,
            autocast=_autocast(runner, split),
            model=settings_of_features(runner.cfg.model),
            dataset=innermost(runner.cfg[f'{split}_dataloader'].dataset),
        )
        if split == 'train':
            settings |= dict(
                num_views=self.num_views,
                num_samples=self.num_samples,
                max_negatives=self.max_negatives,
            )
        folders: list[Any] = [None]
        if is_main_process():
            key = digest_features(unwrapped(runner.model), datasets, settings)
            parent = Path(runner.work_dir).resolve().parent / 'feature_cache'
            folders = [Path(self.cache_dir or parent) / f'{split}-{key}']
            check_writable(folders[0] / RECORD)
        broadcast_object_list(folders)
        return folders[0]

    # -- writing ------------------------------------------------------------

    def _write(
        self,
        runner: Runner,
        loop: Any,
        split: str,
        datasets: list[Any],
        folder: Path,
    ) -> None:
        """Write a cache into a folder; each rank writes a part."""
        model = unwrapped(runner.model)
        is_training = split == 'train'
        model.train(is_training)
        for hook in runner.hooks:
            if is_training and isinstance(hook, TrainOnlyHook):
                hook.before_train_iter(runner)
        num_views = self.num_views if is_training else 1
        images: Any = ConcatDataset(datasets)
        sampler = DefaultSampler(images, shuffle=False, round_up=False)
        batch_size = loop.dataloader.batch_sampler.batch_size
        batches = SeededBatchSampler(sampler, batch_size, self.seed)
        seeded: Any = SeededDataset(images)
        add = partial(self._add_training, runner)
        if not is_training:
            add = partial(self._add_proposals, runner)
        for view in range(num_views):
            batches.start_at(0, view * len(batches))
            loader: Any = DataLoader(
                seeded,
                batch_sampler=batches,
                num_workers=loop.dataloader.num_workers,
                collate_fn=pseudo_collate,
            )
            prefix = part_prefix(folder, view, get_rank())
            with RaggedWriter(prefix) as writer:
                last = time.monotonic()
                for number, data in enumerate(loader, 1):
                    place = view * len(batches) + number
                    seed_all(self.seed, get_rank(), place, 0)
                    add(data, writer)
                    exit_if_preempted(runner)
                    if number == 1 and view == 0:
                        total = num_views * len(images)
                        _check_space(writer, total / batch_size, folder, split)
                    if time.monotonic() - last > SECONDS_PER_LOG:
                        last = time.monotonic()
                        runner.logger.info(
                            f'Features of {split}: view {view + 1} of '
                            f'{num_views}, batch {number} of {len(batches)}'
                        )
        heads = list(classifier_heads(model).values())
        record = dict(
            version=VERSION,
            num_parts=get_world_size(),
            num_images=len(images),
            num_views=num_views,
            num_samples=self.num_samples if is_training else 1,
            num_stages=len(heads),
            has_box_features=not shares_features(heads[-1]),
        )
        if is_main_process():
            write_atomic(folder / RECORD, json.dumps(record, indent=1) + '\n')

    def _add_training(
        self, runner: Runner, data: Any, writer: RaggedWriter
    ) -> None:
        """Write the RoIs of a batch."""
        model = unwrapped(runner.model)
        with runner.optim_wrapper.optim_context(runner.model):
            images = record_training(
                model, data, self.num_samples, self.max_negatives
            )
        for stages in images:
            for stage in stages:
                writer.add('features', self._features(stage.features))
                writer.add('labels', stage.labels.int().numpy())
                writer.add('label_weights', stage.label_weights.numpy())
                for rows in stage.rows:
                    writer.add('rows', rows.int().numpy())

    def _add_proposals(
        self, runner: Runner, data: Any, writer: RaggedWriter
    ) -> None:
        """Write the proposals of a batch, and the metainfo of its images."""
        model = unwrapped(runner.model)
        with autocast(enabled=runner.val_loop.fp16):
            images, samples = record_proposals(model, data)
        for image, sample in zip(images, samples, strict=True):
            for features in image.features:
                writer.add('features', self._features(features))
            writer.add('boxes', image.boxes.float().numpy())
            if image.box_features is not None:
                own = self._features(image.box_features)
                writer.add('box_features', own)
            writer.add('metainfo', format_metainfo(sample.metainfo))

    def _features(self, features: Tensor) -> np.ndarray:
        return features.float().numpy().astype(self.dtype)


# -- checks ----------------------------------------------------------------


def check_trained(model: nn.Module, freezing: list[TrainOnlyHook]) -> None:
    """Check that only classifiers of RoI heads train.

    Raises:
        LongTailError: Naming another parameter that trains.
    """
    check(
        freezing,
        'FeatureCacheHook: nothing freezes the layers whose features are '
        "cached; add default_hooks.train_only=dict(type='TrainOnlyHook', "
        "trainable=['roi_head.bbox_head.fc_cls'])",
    )
    prefixes = tuple(f'{name}.fc_cls.' for name in classifier_heads(model))
    others = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and not name.startswith(prefixes)
    ]
    check(
        not others,
        f'FeatureCacheHook: {"".join(others[:1])} trains, and cached features '
        'are those of a frozen detector; train only fc_cls, or train without '
        'the hook',
    )


def image_datasets(dataset: Any, split: str) -> list[Any]:
    """Return the datasets that load images, in order, without wrappers.

    Raises:
        LongTailError: If a wrapper merges images.
    """
    check(
        not isinstance(dataset, MultiImageMixDataset),
        f'FeatureCacheHook: {split}_dataloader.dataset is a '
        'MultiImageMixDataset, which makes other images in each epoch; train '
        'on the images themselves, or without the hook',
    )
    if isinstance(dataset, ConcatDataset):
        parts = (image_datasets(part, split) for part in dataset.datasets)
        return [one for part in parts for one in part]
    if hasattr(dataset, 'dataset'):
        return image_datasets(dataset.dataset, split)
    return [dataset]


def _autocast(runner: Runner, split: str) -> str:
    """Return the automatic casts under which features are computed."""
    if split == 'val':
        return str(runner.val_loop.fp16)
    wrapper = runner.optim_wrapper
    is_amp = isinstance(wrapper, AmpOptimWrapper)
    return f'AMP to {wrapper.cast_dtype}' if is_amp else 'none'


def _unread_metric(model: Any, metrics: list[Any]) -> str:
    """Return a metric that needs more than boxes, or ''."""
    for metric in metrics:
        name = type(metric).__name__
        if not isinstance(metric, EVALUATED):
            return name
        if model.with_mask and 'segm' in metric.metrics:
            return f'the masks of {name}'
    return ''


def _check_space(
    writer: RaggedWriter, num_batches: float, folder: Path, split: str
) -> None:
    """Check after a batch that all batches fit on the disk."""
    needed = writer.num_bytes * num_batches / 1e9
    free = shutil.disk_usage(folder).free / 1e9
    check(
        needed < free,
        f'{folder}: the features of {split} take about {needed:.3g} GB, but '
        f"{free:.3g} GB are free; set dtype='float16', max_negatives, fewer "
        'num_samples or num_views, or another cache_dir in FeatureCacheHook',
    )

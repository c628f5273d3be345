"""Faults of a run that its built parts show before the first iteration.

`ClassStatisticsHook` looks for them at the start of a training, and
`mmdet_longtail.apis.check` before a job is submitted.
"""

import copy
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from mmdet.evaluation import CocoMetric, LVISMetric
from mmengine.dataset import ClassBalancedDataset
from mmengine.evaluator import Evaluator
from mmengine.hooks import CheckpointHook, EarlyStoppingHook
from mmengine.runner import BaseLoop, Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmdet_longtail.datasets.samplers import RepeatFactorSampler
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.evaluation.metrics import DetectionFileMetric
from mmdet_longtail.structures.findings import Finding, Severity
from mmdet_longtail.utils.class_names import (
    check_same_classes,
    dataset_classes,
)

COCO_ITEMS = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')
LVIS_ITEMS = 'AP AP50 AP75 APs APm APl APr APc APf'.split()
MAX_RANDOM_BACKBONE = 0.5  # share of its parameters; more is another one
MAX_EPOCH_GROWTH = 10.0  # of a sampler, in passes over the images


def find_run_faults(runner: Runner) -> Iterator[Finding]:
    """Find the faults of a training whose loops are built."""
    yield from find_loop_faults(runner.train_loop, 'train')
    if not isinstance(runner._val_loop, BaseLoop):
        return
    dataset = runner.val_loop.dataloader.dataset
    evaluator = runner.val_loop.evaluator
    yield from find_class_faults(
        runner.train_dataloader.dataset, dataset, 'val'
    )
    yield from find_evaluator_faults(evaluator, dataset, 'val')
    yield from find_monitor_faults(monitors(runner), reported_keys(evaluator))


# -- datasets --------------------------------------------------------------


def find_class_faults(
    train: Any, evaluated: Any, split: str
) -> Iterator[Finding]:
    """Compare the classes of the training set with those of another split."""
    ours, theirs = dataset_classes(train), dataset_classes(evaluated)
    if ours is None or theirs is None:
        return
    try:
        check_same_classes(
            ours,
            theirs,
            'the training set',
            f'the {split} set',
            way_out='labels follow the order of categories in each file; give '
            'both datasets the same metainfo=dict(classes=...), or write the '
            'categories of both files in one order',
        )
    except LongTailError as error:
        yield Finding(Severity.ERROR, f'{split}_dataloader: {error}')


def find_loop_faults(loop: BaseLoop, split: str) -> Iterator[Finding]:
    """Check that a loop has iterations, and that its sampler acts."""
    loader: DataLoader = loop.dataloader
    num_images = len(loader.dataset)  # type: ignore[arg-type]
    if len(loader) == 0:
        yield Finding(
            Severity.ERROR,
            f'{split}_dataloader: gives no batch of its {num_images} images; '
            'reduce batch_size, or set drop_last=False',
        )
    elif getattr(loop, 'max_iters', 1) <= 0:
        yield Finding(
            Severity.ERROR,
            f'train_cfg: a training of {loop.max_iters} iterations; set '
            'max_epochs or max_iters to at least 1',
        )
    if getattr(loop, 'val_interval', 1) < 1:
        yield Finding(
            Severity.ERROR,
            f'train_cfg: val_interval is {loop.val_interval}, expected at '
            'least 1; without val_dataloader, val_evaluator and val_cfg there '
            'is no validation',
        )
    innermost: Any = loader.dataset
    while hasattr(innermost, 'dataset'):
        innermost = innermost.dataset
    pipeline = getattr(innermost, 'pipeline', None)
    if pipeline is not None and not getattr(pipeline, 'transforms', True):
        yield Finding(
            Severity.ERROR,
            f'{split}_dataloader.dataset: pipeline is empty; list its '
            'transforms, from LoadImageFromFile to PackDetInputs',
        )
    sampler, dataset = loader.sampler, loader.dataset
    growth = None
    if isinstance(sampler, RepeatFactorSampler):
        key, growth = 'sampler', sampler.repeat_factor.mean()
    elif isinstance(dataset, ClassBalancedDataset):
        key = 'dataset'
        growth = len(dataset) / max(len(dataset.dataset), 1)
    if growth == 1:
        yield Finding(
            Severity.WARNING,
            f'{split}_dataloader.{key}: oversample_thr repeats no image; no '
            'class is that rare, `longtail statistics` suggests a value',
        )
    elif growth is not None and growth > MAX_EPOCH_GROWTH:
        yield Finding(
            Severity.WARNING,
            f'{split}_dataloader.{key}: oversample_thr makes an epoch '
            f'{growth:.0f} times as long; `longtail statistics` suggests a '
            'smaller value',
        )


def image_ids(dataset: Any) -> list[Any]:
    """Return the id per image of a dataset; empty where it has none."""
    if not hasattr(dataset, 'get_data_info'):
        return []
    infos = (dataset.get_data_info(i) for i in range(len(dataset)))
    ids = [info.get('img_id') for info in infos]
    return [] if None in ids else ids


# -- evaluators ------------------------------------------------------------


def find_evaluator_faults(
    evaluator: Evaluator, dataset: Any, split: str
) -> Iterator[Finding]:
    """Compare an evaluator's files with the images that it will be given."""
    ids = image_ids(dataset)
    [(most, times)] = Counter(ids).most_common(1) or [(None, 1)]
    if times > 1:
        yield Finding(
            Severity.ERROR,
            f'{split}_dataloader: {times} images have the id {most!r}, which '
            'a metric takes for one image; give the images of concatenated '
            'sets different ids',
        )
    for metric in evaluator.metrics:
        name = type(metric).__name__
        try:
            known = _known_images(metric)
        except LongTailError as error:
            yield Finding(Severity.ERROR, f'{split}_evaluator: {error}')
            continue
        if known is None:
            if isinstance(metric, DetectionFileMetric | CocoMetric):
                yield from _find_unloaded_instances(name, dataset, split)
            continue
        unknown = [i for i in ids if i not in known]
        if unknown:
            yield Finding(
                Severity.ERROR,
                f'{split}_evaluator: the ann_file of {name} lacks '
                f'{len(unknown)} of the {len(ids)} images of the dataset, '
                f'such as {unknown[0]!r}; give it the ann_file of the '
                f'{split} set',
            )
        elif ids and len(known) > len(given := {*ids}):
            missing = next(i for i in known if i not in given)
            yield Finding(
                Severity.WARNING,
                f'{split}_evaluator: {len(known) - len(given)} of the '
                f'{len(known)} images in the ann_file of {name} are not in '
                f'the {split} set, such as {missing!r}',
            )


def _known_images(metric: Any) -> Collection[Any] | None:
    """Return the image ids of a metric's file; None without a file.

    Raises:
        LongTailError: If the file has other classes than the dataset.
    """
    if isinstance(metric, DetectionFileMetric):
        if metric.ground_truth is None:
            return None
        classes = (metric.dataset_meta or {}).get('classes') or None
        return metric.ground_truth.with_classes(classes).image_of
    for attribute in ('_coco_api', '_lvis_api'):
        content = getattr(metric, attribute, None)
        if content is not None:
            return content.imgs
    return None


def _find_unloaded_instances(
    name: str, dataset: Any, split: str
) -> Iterator[Finding]:
    """Check that a dataset hands its instances to a metric without a file."""
    try:
        packed = dataset[0]['data_samples'].metainfo
    except Exception:
        return  # another finding
    if 'instances' not in packed:
        yield Finding(
            Severity.ERROR,
            f'{split}_evaluator: {name} has no ann_file, and the dataset '
            "hands over no annotations; give ann_file, or add 'instances' to "
            f"meta_keys of PackDetInputs in {split}_dataloader's pipeline",
        )


# -- keys of metrics -------------------------------------------------------


def reported_keys(evaluator: Evaluator) -> list[str] | None:
    """Return the keys that an evaluator reports; None where unknown.

    The metrics have their class statistics and the metainfo of the dataset.
    """
    keys: list[str] = []
    for metric in evaluator.metrics:
        if isinstance(metric, DetectionFileMetric):
            names = metric.reported_names()
        elif type(metric) in (CocoMetric, LVISMetric):
            items = COCO_ITEMS if type(metric) is CocoMetric else LVIS_ITEMS
            if {*metric.metrics} - {'bbox', 'segm'} or metric.classwise:
                return None
            items = metric.metric_items or items
            names = [f'{kind}_{i}' for kind in metric.metrics for i in items]
        else:
            return None
        prefix = metric.prefix and f'{metric.prefix}/'
        keys += [f'{prefix or ""}{name}' for name in names]
    return keys


def monitors(runner: Runner) -> list[Any]:
    """Return hooks and parameter schedules, which may read metrics."""
    schedules = runner.param_schedulers or []
    if isinstance(schedules, Mapping):
        schedules = list(chain.from_iterable(schedules.values()))
    return [*runner.hooks, *schedules]


def monitored_keys(monitor: Any) -> list[str]:
    """Return the keys of metrics that a hook or a schedule reads."""
    if isinstance(monitor, CheckpointHook):
        # Without save_best the hook does not have the attribute.
        return list(getattr(monitor, 'key_indicators', None) or ())
    reads = isinstance(monitor, EarlyStoppingHook) or getattr(
        monitor, 'need_val_args', False
    )
    if isinstance(monitor, Mapping):  # a schedule that is not built
        return [monitor['monitor']] if 'monitor' in monitor else []
    return [monitor.monitor] if reads else []


def find_monitor_faults(
    monitors: Iterable[Any], keys: list[str] | None
) -> Iterator[Finding]:
    """Compare the metrics that hooks and schedules read with those reported.

    Args:
        monitors (Iterable): Hooks and parameter schedules.
        keys (list[str], optional): Reported by the evaluator, in order.
    """
    if not keys:
        return
    for monitor in monitors:
        name = type(monitor).__name__
        if isinstance(monitor, Mapping):
            name = str(monitor.get('type'))
        for key in monitored_keys(monitor):
            if key == 'auto':
                try:
                    copy.copy(monitor)._init_rule([None], [keys[0]])
                except ValueError:
                    yield Finding(
                        Severity.ERROR,
                        f"{name}: save_best='auto' takes {keys[0]!r}, whose "
                        'rule mmengine does not know; write '
                        f"save_best={keys[0]!r}, rule='greater'",
                    )
            elif key not in keys:
                end = key.rpartition('/')[2].rpartition('_')[2]
                near = [k for k in keys if k.endswith(end)] or keys
                yield Finding(
                    Severity.ERROR,
                    f'{name}: {key!r} is reported by no metric of '
                    f'val_evaluator; they report {", ".join(near[:6])}'
                    f'{" ..." if len(near) > 6 else ""}',
                )


# -- load_from -------------------------------------------------------------


def find_loading_faults(
    weights: Mapping[str, Any], model: nn.Module, source: str
) -> Iterator[Finding]:
    """Compare the weights that ``load_from`` gives with a detector.

    Parameters that do not require a gradient are frozen: what is not loaded
    stays random. A part with ``init_cfg`` 'Pretrained' is loaded from there.
    """
    parameters = dict(model.named_parameters())
    own = f'load_from: {source}'
    tensors = {k: v for k, v in weights.items() if isinstance(v, Tensor)}

    def is_loaded(name: str) -> bool:
        shape = parameters[name].shape
        return name in tensors and tensors[name].shape == shape

    def describe(name: str) -> str:
        if name not in tensors:
            return f'{name}, which the checkpoint lacks'
        return (
            f'{name}, {tuple(tensors[name].shape)} in the checkpoint and '
            f'{tuple(parameters[name].shape)} in the model'
        )

    pretrained = tuple(
        f'{name}.'
        for name, module in model.named_modules()
        if 'Pretrained' in str(getattr(module, 'init_cfg', ''))
    )
    others = [name for name in parameters if not is_loaded(name)]
    random = [name for name in others if not name.startswith(pretrained)]
    frozen = [name for name in random if not parameters[name].requires_grad]
    backbone = [name for name in parameters if name.startswith('backbone.')]
    misfits = [name for name in backbone if name in others]
    if len(others) == len(parameters):
        holds = [*tensors][:1] or [*weights][:4]
        yield Finding(
            Severity.ERROR,
            f'{own}: no weight fits the model; it holds '
            f'{", ".join(map(repr, holds)) or "nothing"}, expected names '
            f'such as {others[0]!r}; give a checkpoint of mmdet, with the '
            'weights of the whole detector under state_dict',
        )
    elif frozen:
        yield Finding(
            Severity.ERROR,
            f'{own}: {len(frozen)} frozen parameters are not loaded and would '
            f'stay random, such as {describe(frozen[0])}; give a checkpoint '
            'of this detector, or train these parts',
        )
    elif len(misfits) > MAX_RANDOM_BACKBONE * len(backbone):
        yield Finding(
            Severity.ERROR,
            f'{own}: {len(misfits)} of {len(backbone)} parameters of the '
            f'backbone do not fit, such as {describe(misfits[0])}; give a '
            'checkpoint with the same backbone',
        )
    elif random:
        yield Finding(
            Severity.NOTE,
            f'{own}: {len(random)} of {len(parameters)} parameters start at '
            f'random, such as {describe(random[0])}',
        )

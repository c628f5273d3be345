"""Configs for the data of a user: a detector, or its second stage."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from mmcv.transforms import Resize
from mmdet.evaluation import CocoMetric, LVISMetric
from mmdet.models.losses import CrossEntropyLoss
from mmdet.registry import METRICS, MODELS, TRANSFORMS
from mmengine.config import Config, ConfigDict
from mmengine.registry import Registry, init_default_scope

from mmdet_longtail.apis.runner import load_config
from mmdet_longtail.errors import LongTailError, one_line
from mmdet_longtail.models.losses.base import LongTailLoss
from mmdet_longtail.structures.annotations import parse_annotations
from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.structures.suggestions import suggest_settings
from mmdet_longtail.utils.class_names import check_same_classes
from mmdet_longtail.utils.fileio import read_json

DEFAULT_BASE = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'


class Method(NamedTuple):
    """A loss with the settings that do not come from the data."""

    title: str
    loss: str
    settings: Mapping[str, Any] = {}
    reason: str = ''


METHODS = {
    'softmax': Method('Softmax', 'CrossEntropyLoss', {'use_sigmoid': False}),
    'sigmoid': Method(
        'Sigmoid cross-entropy',
        'EqualizationLoss',
        {'frequency_threshold': 0.0},
        'frequency_threshold: plain sigmoid cross-entropy, no class is tail.',
    ),
    'eql': Method('Equalization Loss', 'EqualizationLoss'),
    'bags': Method('Balanced Group Softmax', 'BalancedGroupSoftmaxLoss'),
}
"""Short names of losses. Any registered loss is a method by its own name."""


def spell(value: Any) -> str:
    """Return a value as configs write it, with dict(key=value) for a dict."""
    if isinstance(value, Mapping):
        items = (f'{key}={spell(item)}' for key, item in value.items())
        return f'dict({", ".join(items)})'
    if isinstance(value, list):
        return f'[{", ".join(map(spell, value))}]'
    return repr(value)


TEMPLATES = Environment(
    loader=PackageLoader('mmdet_longtail', 'apis'),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
TEMPLATES.filters['python'] = spell


def write_config(
    path: Path,
    method: str,
    config: Config,
    statistics: ClassStatistics,
    **given: Any,
) -> None:
    """Write the config of a method, if its detector can be built.

    Args:
        path (Path): File to write.
        method (str): A key of `METHODS`, or the registered name of a
            long-tail loss.
        config (Config): The base, with a RoI head.
        statistics (ClassStatistics): Counts of the training set.
        **given: Other values of ``config.py.jinja``.

    Raises:
        LongTailError: If there is no such loss, or the detector cannot be
            built.
    """
    chosen = METHODS.get(method) or Method(method, method)
    loss, reason = _loss_settings(chosen, statistics)
    heads = config.model.roi_head.bbox_head
    classifier = 'roi_head.bbox_head.fc_cls'
    if isinstance(heads, list):
        classifier = 'roi_head.bbox_head.*.fc_cls'
    hooks: dict[str, Any] = {
        'class_statistics': {'type': 'ClassStatisticsHook'}
    }
    if 'load_from' in given:
        hooks['train_only'] = {
            'type': 'TrainOnlyHook',
            'trainable': [classifier],
        }
    text = TEMPLATES.get_template('config.py.jinja').render(
        given,
        title=chosen.title,
        statistics=statistics,
        loss=loss,
        reason=reason,
        classifier=classifier,
        parts=_parts_with_classes(config.model.roi_head),
        keeps_loss=loss['type'] == 'CrossEntropyLoss' and _is_softmax(heads),
        default_hooks=hooks | given.get('default_hooks', {}),
        custom_imports=merge_imports(config),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    # A config finds its base relative to itself, and needs its suffix.
    unfinished = path.with_name(f'_{os.getpid()}_{path.name}')
    try:
        unfinished.write_text(text)
        _check_model(load_config(unfinished))
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def merge_imports(*configs: Config) -> dict[str, Any]:
    """Return the custom_imports of configs, with mmdet_longtail.

    Args:
        *configs (Config): The configs.
    """
    imports = [config.get('custom_imports') or {} for config in configs]
    modules = [name for one in imports for name in one.get('imports', ())]
    return {
        'imports': list(dict.fromkeys([*modules, 'mmdet_longtail'])),
        'allow_failed_imports': any(
            one.get('allow_failed_imports') for one in imports
        ),
    }


def _loss_settings(
    method: Method, statistics: ClassStatistics
) -> tuple[dict[str, Any], str]:
    """Return the loss_cls of a method, and the reason for its settings.

    Every setting that the data suggests is set if the constructor of the
    loss has it.
    """
    init_default_scope('mmdet')
    kind = MODELS.get(method.loss)
    if kind is not CrossEntropyLoss and not (
        isinstance(kind, type)
        and issubclass(kind, LongTailLoss)
        and kind.custom_cls_channels
    ):
        raise LongTailError(
            f'{method.loss}: no registered long-tail loss for RoI heads; a '
            'loss of your own is registered by custom_imports of the base'
        )
    keys = _constructor_keys(kind)
    loss = {'type': method.loss, **method.settings}
    reasons = [method.reason]
    if 'num_classes' in keys:
        loss['num_classes'] = statistics.num_classes
    for key, (value, reason) in suggest_settings(statistics).items():
        if key in keys and key not in loss:
            if key == 'frequency_threshold':
                value = shortest_threshold(statistics, value)
            loss[key] = value
            reasons.append(f'{key}: {reason}.')
    return loss, ' '.join(filter(None, reasons))


def shortest_threshold(statistics: ClassStatistics, threshold: float) -> float:
    """Round a frequency_threshold as far as the tail stays the same.

    Args:
        statistics (ClassStatistics): Counts of the training set.
        threshold (float): In [0, 1].
    """
    rounded = (float(f'{threshold:.{digits}g}') for digits in range(2, 18))
    tail = statistics.is_tail(threshold)
    return next(r for r in rounded if (statistics.is_tail(r) == tail).all())


def _constructor_keys(kind: type) -> set[str]:
    """Return the arguments that build a class, with those of its bases."""
    keys: set[str] = set()
    for base in kind.__mro__:
        parameters = inspect.signature(base).parameters
        keys |= parameters.keys()
        if all(p.kind is not p.VAR_KEYWORD for p in parameters.values()):
            break
    return keys


def _class_of(config: Mapping[str, Any], registry: Registry) -> type:
    """Return the class that a config names, with a scope or without."""
    kind = config['type']
    return registry.get(kind) if isinstance(kind, str) else kind


def _is_softmax(bbox_head: Any) -> bool:
    """Return whether the loss_cls of each bbox_head is plain softmax."""
    heads = bbox_head if isinstance(bbox_head, list) else [bbox_head]
    losses = [head['loss_cls'] for head in heads]
    return all(
        _class_of(loss, MODELS) is CrossEntropyLoss
        and not loss.get('use_sigmoid')
        for loss in losses
    )


def _parts_with_classes(roi_head: Mapping[str, Any]) -> dict[str, bool]:
    """Return the heads with num_classes, and whether each is a list."""
    return {
        name: isinstance(part, list)
        for name, part in roi_head.items()
        for first in (part[:1] if isinstance(part, list) else [part])
        if isinstance(first, Mapping) and 'num_classes' in first
    }


def _check_model(config: Config) -> None:
    """Check that a detector can be built, with the channels of its loss."""
    init_default_scope('mmdet')
    try:
        with torch.device('meta'):
            model = MODELS.build(config.model)
    except Exception as error:
        raise LongTailError(
            'the base gives no model that can be built '
            f'({type(error).__name__}: {one_line(error)})'
        ) from error
    for head in model.roi_head.bbox_head.modules():
        loss: Any = getattr(head, 'loss_cls', None)
        if not getattr(loss, 'custom_cls_channels', False):
            continue
        needed = loss.get_cls_channels(head.num_classes)
        if head.fc_cls.out_features != needed:
            raise LongTailError(
                f'{type(head).__name__} of the base builds '
                f'{head.fc_cls.out_features} channels and does not ask the '
                f'loss, which needs {needed}; take a base with '
                'Shared2FCBBoxHead or one of its relatives'
            )


def check_base(config: Config, source: str) -> None:
    """Check that a config trains and validates a detector with a RoI head.

    Args:
        config (Config): The config.
        source (str): Its file or checkpoint, for messages.

    Raises:
        LongTailError: If a part is missing.
    """
    for key in ('train_dataloader', 'val_dataloader', 'val_evaluator'):
        if not config.get(key):
            raise LongTailError(
                f'{source}: no {key}; take a config that has it, or add a '
                'base such as mmdet::_base_/datasets/coco_detection.py'
            )
    if 'bbox_head' not in config.get('model', {}).get('roi_head', {}):
        raise LongTailError(
            f'{source}: no model.roi_head.bbox_head; take a detector of two '
            'or more stages, such as Faster, Mask or Cascade R-CNN'
        )


# -- a second stage of a checkpoint ----------------------------------------


def write_second_stage(
    path: Path, config: Config, statistics: ClassStatistics, **given: Any
) -> None:
    """Write a second stage of Balanced Group Softmax on the same data.

    COCO's and LVIS's metrics become FrequencyGroupMetric.

    Args:
        path (Path): File to write.
        config (Config): Of the first stage.
        statistics (ClassStatistics): Counts of the training set.
        **given: See `write_config`.

    Raises:
        LongTailError: If the detector cannot be built.
    """
    evaluators = {}
    for name in ('val_evaluator', 'test_evaluator'):
        before = config.get(name) or []
        after = _with_groups(before)
        if after != before:
            is_list = isinstance(after, list)
            evaluators[name] = after if is_list else {'_delete_': True} | after
    hooks = {}
    saving = config.get('default_hooks', {}).get('checkpoint') or {}
    if saving.get('save_best') and evaluators:
        # The metrics that the base saves by are replaced.
        best = {'save_best': 'frequency_group/bbox_AP', 'rule': 'greater'}
        hooks['checkpoint'] = best
    write_config(
        path,
        'bags',
        config,
        statistics,
        evaluators=evaluators,
        default_hooks=hooks,
        sets_test_cfg=True,
        **given,
    )


def _with_groups(evaluator: Any) -> Any:
    """Replace COCO's and LVIS's metric by one with frequency groups."""
    if isinstance(evaluator, list | tuple):
        return [_with_groups(metric) for metric in evaluator]
    if _class_of(evaluator, METRICS) not in (CocoMetric, LVISMetric):
        return evaluator
    metrics = evaluator.get('metric', 'bbox')
    metrics = [metrics] if isinstance(metrics, str) else metrics
    known = [name for name in metrics if name in ('bbox', 'segm')]
    kept = {
        key: evaluator[key]
        for key in ('ann_file', 'backend_args')
        if evaluator.get(key)
    }
    return {'type': 'FrequencyGroupMetric', 'metric': known or ['bbox']} | kept


# -- a detector on the data of a user --------------------------------------


def make_config(
    data_root: str | Path,
    train: str,
    val: str,
    method: str,
    *,
    base: Sequence[str] = (DEFAULT_BASE,),
    base_config: str | None = None,
    image_prefix: Sequence[str] | None = None,
    scale: Sequence[int] | None = None,
    out: str | Path | None = None,
) -> Path:
    """Write a config for COCO or LVIS format data.

    Args:
        data_root (str | Path): Folder of the data.
        train (str): Annotation file, relative to data_root.
        val (str): Annotation file, relative to data_root.
        method (str): A key of `METHODS`, or the registered name of a
            long-tail loss.
        base (Sequence[str]): Configs that make up a detector with a RoI
            head: paths or ``mmdet::`` names. Defaults to Faster R-CNN.
        base_config (str, optional): Config of a first stage on the same
            data, in place of a base; the written one trains its classifier.
        image_prefix (Sequence[str], optional): Folder of the images,
            relative to data_root, or those of training and of validation.
            Defaults to a search.
        scale (Sequence[int], optional): Width and height of images.
            Defaults to the base's.
        out (str | Path, optional): File to write. Defaults to
            ``<name of data_root>_<method>.py``.

    Returns:
        Path: The written file.

    Raises:
        LongTailError: If data, base and method do not fit each other, or the
            file exists.
    """
    root = Path(data_root)
    out = Path(out or f'{root.resolve().name}_{method}.py')
    if out.exists():
        raise LongTailError(
            f'{out}: exists already; remove it, or give another --out'
        )
    prefixes: Sequence[str | None] = image_prefix or [None]
    splits = Split(root, train, prefixes[0]), Split(root, val, prefixes[-1])
    check_same_classes(
        splits[0].statistics.class_names,
        splits[1].statistics.class_names,
        str(splits[0].path),
        str(splits[1].path),
        'both files need the same categories in the same order',
    )
    bases = [base_config] if base_config else list(base)
    config = _read_bases(bases)
    has_masks = 'mask_head' in config.model.roi_head
    for split in splits:
        if has_masks and not split.has_masks:
            raise LongTailError(
                f'{split.path}: no segmentation, but the base learns masks; '
                f'take a base without mask_head, such as {DEFAULT_BASE}'
            )
    bases = [
        name if '::' in name else os.path.relpath(name, out.parent)
        for name in bases
    ]
    given: dict[str, Any]
    if base_config:
        _check_trains_on(config, splits[0].path)
        epochs, iters = map(config.train_cfg.get, ('max_epochs', 'max_iters'))
        last = f'epoch_{epochs}.pth' if epochs else f'iter_{iters}.pth'
        given = {
            'load_from': f'work_dirs/{Path(base_config).stem}/{last}',
        }
    else:
        given = {
            'data_root': os.path.join(root, ''),
            'loaders': [
                (split, *_loader(f'{name}_dataloader', config, scale))
                for split, name in zip(splits, ('train', 'val'))
            ],
            'scale': scale and tuple(scale),
            'metric': ['bbox', 'segm'] if has_masks else 'bbox',
            'sets_test_cfg': True,
        }
    write_config(
        out,
        method,
        config,
        splits[0].statistics,
        base=bases[0] if len(bases) == 1 else bases,
        tool='make_config',
        source=splits[0].path,
        command=f'python tools/train.py {out}',
        **given,
    )
    return out


class Split:
    """An annotation file of the data and the folder of its images.

    Args:
        data_root (Path): Folder of the data.
        ann_file (str): The file, relative to data_root.
        image_prefix (str, optional): Folder of its images, relative to
            data_root. Defaults to a search, two levels deep.

    Raises:
        LongTailError: If the file cannot be read, or its images are not in
            one folder.
    """

    def __init__(
        self, data_root: Path, ann_file: str, image_prefix: str | None
    ) -> None:
        self.path = data_root / ann_file
        self.ann_file = ann_file
        content = read_json(self.path)
        annotations = parse_annotations(content, str(self.path))
        self.statistics = ClassStatistics.from_annotations(annotations)
        self.has_masks = any(
            annotation.get('segmentation')
            for annotation in content['annotations']
        )
        names = [
            image.get('file_name')
            or image.get('coco_url', '').removeprefix(
                'http://images.cocodataset.org/'
            )
            for image in (content['images'][0], content['images'][-1])
        ]
        folders = [data_root / (image_prefix or '')]
        if image_prefix is None:
            folders += sorted(data_root.glob('*/'))
            folders += sorted(data_root.glob('*/*/'))
        hits = [
            folder
            for folder in folders
            if all((folder / name).is_file() for name in names)
        ]
        if len(hits) != 1:
            found = f'in {hits[0]} and {hits[1]}' if hits else 'not found'
            raise LongTailError(
                f'{self.path}: image {names[0]} is {found}, searched '
                f'{folders[0]}; give its folder by --image-prefix'
            )
        prefix = os.path.relpath(hits[0], data_root)
        self.image_prefix = '' if prefix == '.' else f'{prefix}/'


def _read_bases(bases: Sequence[str]) -> Config:
    """Read the configs that the written one inherits from."""
    source = ' '.join(bases)
    paths = [base if '::' in base else os.path.abspath(base) for base in bases]
    try:
        config = Config.fromstring(f'_base_ = {paths!r}', '.py')
    except Exception as error:
        raise LongTailError(
            f'{source}: not a config that can be read '
            f'({type(error).__name__}: {one_line(error)})'
        ) from error
    check_base(config, source)
    if 'semantic_head' in config.model.roi_head:
        raise LongTailError(
            f'{source}: its semantic_head needs maps of pixels that '
            'COCO and LVIS files do not have; take '
            'mmdet::htc/htc-without-semantic_r50_fpn_1x_coco.py'
        )
    return config


def _innermost(dataset: ConfigDict) -> tuple[str, ConfigDict]:
    """Return the dataset inside wrappers, after the key that leads to it."""
    key = 'dataset'
    while 'dataset' in dataset:
        dataset = dataset.dataset
        key += '.dataset'
    return key, dataset


def _check_trains_on(config: Config, path: Path) -> None:
    """Check that a first stage is trained on an annotation file."""
    _, dataset = _innermost(config.train_dataloader.dataset)
    ann_file = os.path.join(
        dataset.get('data_root') or '', dataset.get('ann_file', '')
    )
    if os.path.abspath(ann_file) != os.path.abspath(path):
        raise LongTailError(
            f'--base-config: it trains on {ann_file}, not on {path}; both '
            'stages need the same data'
        )


def _loader(
    name: str, config: Config, scale: Sequence[int] | None
) -> tuple[str, ConfigDict, str, str | None]:
    """Return name, dataset, key of the dataset, and type of its Resize."""
    key, dataset = _innermost(config[name].dataset)
    resize = None
    if scale:
        resizes = [
            step.type
            for step in dataset.pipeline
            if 'scale' in step
            and issubclass(_class_of(step, TRANSFORMS), Resize)
        ]
        if not resizes:
            raise LongTailError(
                f"--scale: no Resize in the base's {name}; leave --scale "
                'out, or take another base'
            )
        resize = resizes[0]
    return name, dataset, f'{name}.{key}', resize

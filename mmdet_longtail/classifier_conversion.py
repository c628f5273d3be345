"""A checkpoint's classifiers in the column order of another loss.

The last layer of a RoI head, ``fc_cls``, has other columns under every kind
of loss. A column is a row of its weight with its bias; a layout says which
columns there are:

======================  ==================================================
softmax                 C classes, background
sigmoid                 C classes; a constant may be added to their logits
balanced group softmax  C classes, G others, foreground, background
======================  ==================================================

In between stands the softmax. To it:

- A sigmoid is a softmax against a logit of 0, so the class columns get the
  constant and background is 0. Exact for each class by itself.
- Of bins with ``others``, each class column is moved by what its own
  ``others`` lies above the mean of them, and that mean is background: within
  a bin, ``others`` is what background is in a softmax.
- Of bins without ``others``, class columns are moved by foreground less
  background.

From it:

- To sigmoids: class columns less background, less the constant.
- To bins: class columns stay, every ``others`` starts as background, and
  foreground as :func:`foreground_of` says.

Bins multiply probabilities, a softmax adds exponentials, and log-sum-exp is
not linear: between the two no linear layer can predict the same, and each of
these rules is only a start. What both layouts have, with the same bins, is
copied.

Shapes: C classes, G bins, D columns, F input features.
"""

from __future__ import annotations

import difflib
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.logging import print_log
from torch import Tensor

from mmdet_longtail.class_names import check_same_classes
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.losses import BalancedGroupSoftmaxLoss, LongTailLoss
from mmdet_longtail.statistics import ClassStatistics

SOFTMAX = ('classes', 'background')
SIGMOID = ('sigmoids',)
SEESAW = ('classes', 'foreground', 'background')
GROUPS = {
    'BalancedGroupSoftmaxWithoutOthersLoss': SEESAW,
    'BalancedGroupSoftmaxWithoutBackgroundLoss': ('classes', 'others'),
    'BalancedGroupSoftmaxLoss': (
        'classes',
        'others',
        'foreground',
        'background',
    ),
}
SOURCES = {
    'softmax': 'C + 1 columns, background last (first in mmdet 1.x)',
    'sigmoid': 'C columns, the prior in the bias, as EQL was released',
    'bags': 'C + G + 2 columns of BalancedGroupSoftmaxLoss',
    'bags-eqlv2': 'the same columns by bin, foreground and background last',
    'bags-original': 'the same by bin, background and foreground first',
    'seesaw': 'C + 2 columns of SeesawLoss',
}
"""What ``source`` may be, besides 'auto'."""

# Losses of other repositories, known by name.
FOREIGN_LOSSES = {'EQL': 'sigmoid', 'GroupSoftmax': 'bags-eqlv2'}
FOREIGN_HEADS = {'GSBBoxHeadWith0': 'bags-original'}
# Multiplies the logits by a factor that starts at 1.
SCALED = 'ScaledLinear'
FC_CLS_OF_MMDET1 = r'bbox_head(\.\d+)?\.fc_cls\.'


@dataclass(frozen=True)
class Layout:
    """Which columns a classifier has.

    Args:
        name (str): What it is called in messages.
        parts (tuple[str, ...]): 'classes', or 'sigmoids' for classes without
            background, then 'others', 'foreground', 'background', as they
            come.
        prior_logit (float): Constant that is added to sigmoids.
        bin_index (tuple[int, ...], optional): Bin of each class; None
            without bins, or if it is not known.
        num_bins (int): G.
    """

    name: str
    parts: tuple[str, ...]
    prior_logit: float = 0.0
    bin_index: tuple[int, ...] | None = None
    num_bins: int = 0

    def sizes(self, num_classes: int) -> list[int]:
        """Number of columns of each part."""
        size = {
            'classes': num_classes,
            'sigmoids': num_classes,
            'others': self.num_bins,
        }
        return [size.get(part, 1) for part in self.parts]


def convert_columns(
    columns: Tensor, num_classes: int, source: Layout, target: Layout
) -> Tensor:
    """Lay the columns of a classifier out for another loss.

    Args:
        columns (Tensor): Weight and bias in one, (D, F + 1).
        num_classes (int): C.
        source (Layout): What they are, with its bins if it has any.
        target (Layout): What they become.

    Returns:
        Tensor: The columns of the target (D', F + 1).
    """
    found = dict(
        zip(
            source.parts,
            columns.double().split(source.sizes(num_classes)),
            strict=True,
        )
    )
    parts = _from_softmax(*_to_softmax(found, source), target)
    parts |= _kept(found, source, target)
    return torch.cat([parts[part] for part in target.parts]).to(columns)


def foreground_of(classes: Tensor, background: Tensor) -> Tensor:
    """Start of the column that competes with background.

    Args:
        classes (Tensor): Class columns (C, F + 1).
        background (Tensor): Background column (1, F + 1).
    """
    return background


def _to_softmax(
    found: dict[str, Tensor], source: Layout
) -> tuple[Tensor, Tensor]:
    """Class columns (C, F + 1) and background (1, F + 1) of a softmax."""
    if 'sigmoids' in found:
        classes = found['sigmoids'].clone()
        classes[:, -1] += source.prior_logit
        return classes, torch.zeros_like(classes[:1])
    if 'others' in found:
        others = found['others']
        background = others.mean(0, keepdim=True)
        own_others = others[torch.tensor(source.bin_index)]
        return found['classes'] - own_others + background, background
    background = found['background']
    if 'foreground' in found:
        shift = found['foreground'] - background
        return found['classes'] + shift, background
    return found['classes'], background


def _from_softmax(
    classes: Tensor, background: Tensor, target: Layout
) -> dict[str, Tensor]:
    """Every part that the target may have, from columns of a softmax."""
    sigmoids = classes - background
    sigmoids[:, -1] -= target.prior_logit
    return {
        'classes': classes,
        'sigmoids': sigmoids,
        'others': background.expand(target.num_bins, -1),
        'foreground': foreground_of(classes, background),
        'background': background,
    }


def _kept(
    found: Mapping[str, Any], source: Layout, target: Layout
) -> dict[str, Any]:
    """Parts that mean the same in both."""
    if source.bin_index != target.bin_index or (
        source.prior_logit != target.prior_logit
    ):
        return {}
    return {part: found[part] for part in target.parts if part in found}


def describe(source: Layout, target: Layout) -> str:
    """Say by which rules the columns of the target come about."""
    kept = _kept(dict.fromkeys(source.parts), source, target)
    rules = {
        'classes': (
            'class rows less their others plus the mean of others'
            if 'others' in source.parts
            else 'class rows plus foreground less background'
            if 'foreground' in source.parts
            else 'class rows plus the prior'
            if 'sigmoids' in source.parts
            else 'class rows kept'
        ),
        'sigmoids': 'class rows less background',
        'others': 'others from background',
        'foreground': 'foreground from background',
        'background': (
            'background from the mean of others'
            if 'others' in source.parts
            else 'background zero'
            if 'sigmoids' in source.parts
            else 'background kept'
        ),
    }
    said = [rules[part] for part in target.parts if part not in kept]
    if target.prior_logit != source.prior_logit:
        change = source.prior_logit - target.prior_logit
        said.append(f'{change:+.4g} in the bias of the classes')
    if kept:
        said.insert(0, f'{" and ".join(kept)} kept')
    return ', '.join(said)


def columns_of_eqlv2(bin_index: np.ndarray, num_bins: int) -> np.ndarray:
    """Where our columns stand in the GroupSoftmax of the eqlv2 repository.

    There each bin has ``others``, then its classes in order of label; the
    last two columns are foreground and background.

    Args:
        bin_index (np.ndarray): Bin of each class (C,).
        num_bins (int): G.

    Returns:
        np.ndarray: (C + G + 2,), for [C classes | G others | foreground,
        background].
    """
    C, G = len(bin_index), num_bins
    groups = [
        np.append(C + g, np.flatnonzero(bin_index == g)) for g in range(G)
    ]
    theirs = np.concatenate([*groups, [C + G, C + G + 1]])
    return np.argsort(theirs)


def columns_of_original_bags(
    bin_index: np.ndarray, num_bins: int
) -> np.ndarray:
    """Where our columns stand in the repository of the BAGS paper.

    There background and foreground come first; then each bin has ``others``
    and its classes in order of label.

    Args:
        bin_index (np.ndarray): Bin of each class (C,).
        num_bins (int): G.

    Returns:
        np.ndarray: (C + G + 2,), for [C classes | G others | foreground,
        background].
    """
    C, G = len(bin_index), num_bins
    groups = [
        np.append(C + g, np.flatnonzero(bin_index == g)) for g in range(G)
    ]
    theirs = np.concatenate([[C + G + 1, C + G], *groups])
    return np.argsort(theirs)


# -- heads of a config -------------------------------------------------------


@dataclass(frozen=True)
class Head:
    """What a config says about a RoI head.

    Args:
        kind (str): Its type.
        num_classes (int): C.
        loss_cls (dict): Config of its loss.
        predictor (str): Type of ``fc_cls``.
    """

    kind: str
    num_classes: int
    loss_cls: dict[str, Any]
    predictor: str


def roi_heads(config: Config) -> dict[str, Head]:
    """List the RoI heads of a config, in the layout of mmdet 2.x and 3.x.

    Args:
        config (Config): With ``model.roi_head.bbox_head``, or
            ``model.bbox_head`` as in mmdet 1.x, whose num_classes counts
            background.

    Returns:
        dict[str, Head]: By module name, such as 'roi_head.bbox_head' or, in a
        cascade, 'roi_head.bbox_head.0'. Empty if there are none.
    """
    model = config.get('model', {})
    num_background = 0 if 'roi_head' in model else 1
    owner = model.get('roi_head', model)
    heads = owner.get('bbox_head')
    if heads is None or 'rpn_head' not in model:
        return {}
    if isinstance(heads, Mapping) and 'num_stages' in owner:
        heads = [heads] * owner['num_stages']
    named = (
        {'roi_head.bbox_head': heads}
        if isinstance(heads, Mapping)
        else {f'roi_head.bbox_head.{i}': head for i, head in enumerate(heads)}
    )
    return {
        name: Head(
            head['type'],
            head.get('num_classes', 80) - num_background,
            head.get(
                'loss_cls', dict(type='CrossEntropyLoss', use_sigmoid=False)
            ),
            head.get('cls_predictor_cfg', dict(type='Linear'))['type'],
        )
        for name, head in named.items()
    }


def layout_of(
    loss: Any, bin_index: np.ndarray | None, num_classes: int
) -> Layout:
    """The layout of a loss that was built.

    Args:
        loss (nn.Module): A loss_cls of a RoI head.
        bin_index (np.ndarray, optional): Bin of each class (C,), if known.
        num_classes (int): C.

    Raises:
        LongTailError: If its columns are not known.
    """
    name = type(loss).__name__
    for kind in type(loss).__mro__:
        if kind.__name__ == 'SeesawLoss':
            one_bin = (0,) * num_classes
            return Layout(name, SEESAW, 0.0, one_bin, 1)
        if kind.__name__ in GROUPS:
            bins = None if bin_index is None else tuple(bin_index.tolist())
            parts = GROUPS[kind.__name__]
            return Layout(name, parts, 0.0, bins, loss.num_bins)
        if kind.__name__ in ('EqualizationLoss', 'RoIFocalLoss'):
            return Layout(name, SIGMOID, loss.prior_logit)
        if kind.__name__ in (
            'CrossEntropyLoss',
            'SoftmaxEqualizationLoss',
            'ReweightedSoftmaxLoss',
        ) and not getattr(loss, 'use_sigmoid', False):
            return Layout(name, SOFTMAX)
    raise LongTailError(
        f'loss_cls={name}: its columns are not known; expected '
        'CrossEntropyLoss with use_sigmoid=False, SeesawLoss or a loss of '
        'mmdet_longtail for RoI heads'
    )


# -- checkpoints -------------------------------------------------------------


def convert_checkpoint(
    checkpoint: Mapping[str, Any],
    config: Config,
    source: str = 'auto',
    class_statistics: ClassStatistics | None = None,
) -> dict[str, Any]:
    """Give every ``fc_cls`` of a checkpoint the layout of a config's losses.

    The result is a beginning, not something to resume: it has the weights,
    the classes, the config and, if they are known, the class statistics, also
    in the buffers of the losses. Where the checkpoint has EMA weights, its
    ``state_dict`` is them. A checkpoint of mmdet 1.x gets the names of today,
    and loses the box and mask channels of background.

    Args:
        checkpoint (Mapping): Of mmdet 1.x to 3.x; not changed.
        config (Config): The detector that the result is for.
        source (str): One of ``SOURCES``; 'auto' asks the config that the
            checkpoint carries, else the number of columns.
        class_statistics (ClassStatistics, optional): Counts of the training
            set; by default those that the checkpoint carries. Bins need them.

    Returns:
        dict[str, Any]: meta, state_dict and class_statistics.

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
    meta = checkpoint.get('meta') or {}
    carried_config = _carried_config(meta)
    carried_heads = roi_heads(carried_config) if carried_config else {}
    statistics = class_statistics
    if statistics is None and 'class_statistics' in checkpoint:
        statistics = ClassStatistics.from_dict(checkpoint['class_statistics'])
    names = _check_classes(checkpoint, config, heads, statistics)

    weights = {
        name.removeprefix('module.'): value
        for name, value in checkpoint.get('state_dict', checkpoint).items()
    }
    is_mmdet1 = any(re.match(FC_CLS_OF_MMDET1, name) for name in weights)
    if is_mmdet1:
        num_classes = next(iter(heads.values())).num_classes
        weights = _renamed(weights, num_classes)
    _check_layers(weights, heads)
    for layer, head in heads.items():
        layer_weights = {
            name: weights.pop(name)
            for name in list(weights)
            if re.match(rf'{re.escape(layer)}\.(fc_cls|loss_cls)\.', name)
        }
        weights |= _converted(
            layer,
            layer_weights,
            head,
            carried_heads.get(layer),
            source,
            is_mmdet1,
            statistics,
        )
    result: dict[str, Any] = {
        'meta': {'cfg': config.pretty_text},
        'state_dict': weights,
    }
    if names is not None:
        dataset_meta = meta.get('dataset_meta') or {}
        result['meta']['dataset_meta'] = {
            **{key.lower(): value for key, value in dataset_meta.items()},
            'classes': names,
        }
    if statistics is not None:
        result['class_statistics'] = statistics.to_dict()
    return result


def _converted(
    layer: str,
    weights: Mapping[str, Tensor],
    head: Head,
    carried_head: Head | None,
    source: str,
    is_mmdet1: bool,
    statistics: ClassStatistics | None,
) -> dict[str, Tensor]:
    """Convert ``fc_cls`` and ``loss_cls`` of one head."""
    num_classes = head.num_classes
    loss = MODELS.build(head.loss_cls)
    result = {
        name: value
        for name, value in weights.items()
        if name.startswith(f'{layer}.fc_cls.')
    }
    if isinstance(loss, LongTailLoss) and statistics is not None:
        loss.set_class_statistics(statistics)
        result |= {
            f'{layer}.loss_cls.{name}': buffer
            for name, buffer in loss.state_dict().items()
        }
    target = layout_of(loss, _bin_index(loss, statistics), num_classes)

    weight = weights[f'{layer}.fc_cls.weight']
    bias = weights[f'{layer}.fc_cls.bias']
    bins = weights.get(f'{layer}.loss_cls.bin_index')
    found, order = _found_layout(
        layer,
        len(weight),
        loss,
        num_classes,
        carried_head,
        source,
        is_mmdet1,
        None if bins is None else bins.numpy(),
        statistics,
    )
    needs_bins = [found] if 'others' in found.parts else []
    if found.num_bins and target.num_bins:
        needs_bins += [target]
    if any(layout.bin_index is None for layout in needs_bins):
        raise _no_statistics(layer)
    _check_predictor(layer, weights, carried_head, head, found == target)

    columns = torch.cat([weight, bias.unsqueeze(1)], 1)
    if order is not None:
        columns = columns[torch.as_tensor(order)]
    columns = convert_columns(columns, num_classes, found, target)
    result[f'{layer}.fc_cls.weight'] = columns[:, :-1].clone()
    result[f'{layer}.fc_cls.bias'] = columns[:, -1].clone()
    print_log(
        f'{layer}.fc_cls: {len(weight)} columns of {found.name} -> '
        f'{len(columns)} of {target.name}; {describe(found, target)}'
    )
    return result


def _found_layout(
    layer: str,
    num_columns: int,
    target_loss: Any,
    num_classes: int,
    carried_head: Head | None,
    source: str,
    is_mmdet1: bool,
    bin_index: np.ndarray | None,
    statistics: ClassStatistics | None,
) -> tuple[Layout, np.ndarray | None]:
    """What a checkpoint's columns are, and in which order if not in ours."""
    C = num_classes
    order = None
    if source == 'auto' and carried_head is not None:
        kind = carried_head.loss_cls['type']
        source = FOREIGN_HEADS.get(
            carried_head.kind, FOREIGN_LOSSES.get(kind, 'auto')
        )
    if source == 'auto' and carried_head is None:
        by_width = {C + 1: 'softmax', C: 'sigmoid'}
        if num_columns not in by_width:
            raise LongTailError(
                f'{layer}.fc_cls has {num_columns} columns for {C} classes, '
                'and the checkpoint carries no config that says which: give '
                f'--source, one of {", ".join(SOURCES)}'
            )
        source = by_width[num_columns]

    if source == 'auto':
        assert carried_head is not None
        kind = carried_head.loss_cls['type']
        if MODELS.get(kind) is None:
            raise LongTailError(
                f'{layer}: the loss_cls of the checkpoint, {kind}, is not '
                f'known; give --source, one of {", ".join(SOURCES)}'
            )
        loss = MODELS.build(carried_head.loss_cls)
        if bin_index is None:
            bin_index = _bin_index(loss, statistics)
        layout = layout_of(loss, bin_index, C)
    elif source == 'softmax':
        layout = Layout(source, SOFTMAX)
    elif source == 'sigmoid':
        layout = Layout(source, SIGMOID)
    elif source == 'seesaw':
        layout = Layout(source, SEESAW, 0.0, (0,) * C, 1)
    else:
        # Bins are those of the target, if it has any, else the paper's.
        loss = target_loss
        if not hasattr(loss, 'bin_edges'):
            loss = BalancedGroupSoftmaxLoss(C)
        if bin_index is None:
            bin_index = _bin_index(loss, statistics)
        if bin_index is None:
            raise _no_statistics(layer)
        G = loss.num_bins
        bins = tuple(bin_index.tolist())
        layout = Layout(source, GROUPS['BalancedGroupSoftmaxLoss'], 0, bins, G)
        if source == 'bags-eqlv2':
            order = columns_of_eqlv2(bin_index, G)
        elif source == 'bags-original':
            order = columns_of_original_bags(bin_index, G)
    if is_mmdet1 and layout.parts == SOFTMAX:
        layout = Layout(layout.name, SOFTMAX[::-1])

    expected = sum(layout.sizes(C))
    if num_columns != expected:
        bins_said = f' in {layout.num_bins} bins' if layout.num_bins else ''
        raise LongTailError(
            f'{layer}.fc_cls has {num_columns} columns, but {layout.name} of '
            f"the config's {C} classes{bins_said} has {expected}: the "
            'checkpoint is of other classes, of other bins or of another '
            f'--source ({", ".join(SOURCES)})'
        )
    return layout, order


def _bin_index(
    loss: Any, statistics: ClassStatistics | None
) -> np.ndarray | None:
    """Bin of each class (C,), if the loss has bins and counts are known."""
    if statistics is None or not hasattr(loss, 'bin_edges'):
        return None
    return statistics.bin_index(loss.bin_edges)


def _no_statistics(layer: str) -> LongTailError:
    return LongTailError(
        f'{layer}.fc_cls: which bin a class is in follows from class '
        'statistics, and the checkpoint carries none: give '
        '--class-statistics FILE, an annotation file of the training set or '
        'what tools/class_statistics.py --out wrote'
    )


def _carried_config(meta: Mapping[str, Any]) -> Config | None:
    """The config in a checkpoint, None if there is none that can be read."""
    text = meta.get('cfg') or meta.get('config')
    if not isinstance(text, str):
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'config.py')
        # mmdet 1.x puts the name of the file into the first line.
        for content in (text, f'#{text}'):
            path.write_text(content, encoding='utf-8')
            try:
                return Config.fromfile(path, import_custom_modules=False)
            except Exception:  # of any kind: it is somebody's program
                continue
    return None


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
    weights: Mapping[str, Tensor], heads: Mapping[str, Head]
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
    if set(found) != set(heads):
        raise LongTailError(
            f'the checkpoint has the heads {", ".join(found)}, but the '
            f'config {", ".join(heads)}: give the config of this detector'
        )


def _check_predictor(
    layer: str,
    weights: Mapping[str, Tensor],
    carried_head: Head | None,
    head: Head,
    is_same_layout: bool,
) -> None:
    """Refuse what is no linear layer."""
    names = {
        name.removeprefix(f'{layer}.fc_cls.')
        for name in weights
        if name.startswith(f'{layer}.fc_cls.')
    }
    found = 'Linear' if carried_head is None else carried_head.predictor
    is_plain = found == 'Linear' and names == {'weight', 'bias'}
    if is_plain and head.predictor in ('Linear', SCALED):
        return
    if is_same_layout and found == head.predictor:
        return
    raise LongTailError(
        f'{layer}.fc_cls: is a {found} with {", ".join(sorted(names))} in '
        f'the checkpoint and a {head.predictor} in the config; only Linear '
        'can be converted'
    )


def _check_classes(
    checkpoint: Mapping[str, Any],
    config: Config,
    heads: Mapping[str, Head],
    statistics: ClassStatistics | None,
) -> tuple[str, ...] | None:
    """Compare all that names classes; give the names of the checkpoint."""
    named = _classes_of_checkpoint(checkpoint)
    num_classes = next(iter(heads.values())).num_classes
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
        _check_names(named, counted, 'the checkpoint', 'the class statistics')
    if of_config is not None and named is not None:
        _check_names(
            of_config, named, "the config's training set", 'the checkpoint'
        )
    return named if named is not None else of_config


def _check_names(
    expected: Sequence[str],
    found: Sequence[str],
    expected_in: str,
    found_in: str,
) -> None:
    """Compare class names, where mmdet may correct the spelling of a file."""
    known = {*expected} & {*found}
    found = [
        ours
        if not known & {ours, theirs}
        and difflib.get_close_matches(ours, [theirs], cutoff=0.9)
        else theirs
        for ours, theirs in zip(expected, found)
    ] + [*found[len(expected) :]]
    check_same_classes(expected, found, expected_in, found_in)


def _classes_of_checkpoint(
    checkpoint: Mapping[str, Any],
) -> tuple[str, ...] | None:
    meta = checkpoint.get('meta') or {}
    dataset_meta = meta.get('dataset_meta') or {}
    for names in (
        dataset_meta.get('classes'),
        dataset_meta.get('CLASSES'),
        meta.get('CLASSES'),
    ):
        if names is not None:
            return tuple(names)
    return None


def _classes_of_config(config: Config) -> tuple[str, ...] | None:
    """Classes that a config names itself, without its annotation files."""
    dataset = (config.get('train_dataloader') or {}).get('dataset') or {}
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    kind = DATASETS.get(dataset.get('type', ''))
    names = {
        **getattr(kind, 'METAINFO', {}),
        **(dataset.get('metainfo') or {}),
    }.get('classes')
    return tuple(names) if isinstance(names, list | tuple) and names else None

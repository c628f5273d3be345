"""Conversion of a checkpoint's classifiers to the columns of other losses.

A column is a row of the weight of ``fc_cls`` with its bias. A layout is the
sequence of column blocks that a loss declares as ``column_blocks``. Columns
are converted to a softmax, and from it to the target. With the columns z of a
class, o of ``others`` in its bin, f of foreground and b of background:

- The softmax is class z + f - o against background b. Exactly,
  P(class) / P(b) = e^(f - b) P(class | bin), and P(class | bin) is about
  e^(z - o) while ``others`` is the most probable in the bin, as for most RoIs.
  Without ``others``, o is b. Without foreground, f is b. Without background,
  b is the mean of ``others``. Sigmoids are against their own sigmoid of
  background or, without one, 0, and the constant of their loss is added.
- Target sigmoids are class less background, less the constant of the loss: a
  sigmoid is a softmax of two, so each class by itself is exact. A sigmoid of
  background is one half for each RoI.
- A sigmoid is no Gumbel activation of a linear layer. Target Gumbels, and the
  way back, take the straight line of logits through the two probabilities
  1/2 and 6.2e-4, the prior of the Gumbel losses. It keeps the order of all
  scores, and logits that the losses would clamp become rare.
- Target bins have background as ``others`` and foreground.

Blocks that both layouts have, with the same bins, are copied instead, but for
the constants of the losses. From a softmax to sigmoids or bins and back is
exact. Between a softmax and bins no linear layer can predict the same: bins
multiply probabilities, each over its own sum of exponentials, and the
logarithm of such a sum is not linear. A sigmoid of background multiplies the
probabilities of the classes, too.

Shapes: C classes, G bins, D columns, F input features.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from mmdet.models.losses import CrossEntropyLoss, EQLV2Loss, SeesawLoss
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from torch import Tensor

from mmdet_longtail.errors import LongTailError, check
from mmdet_longtail.models.losses import (
    LongTailLoss,
    OnlineState,
    SyncSeesawLoss,
)
from mmdet_longtail.models.losses.base import ColumnBlock, block_sizes
from mmdet_longtail.models.losses.gumbel import PRIOR_PROB
from mmdet_longtail.models.utils.bbox_heads import bbox_head_configs
from mmdet_longtail.structures import Checkpoint, ClassStatistics
from mmdet_longtail.structures.carried_config import (
    are_configs_trusted,
    check_names,
)
from mmdet_longtail.utils.checks import check_choice
from mmdet_longtail.utils.registry import innermost, resolve_type, type_name

SOFTMAX: tuple[ColumnBlock, ...] = ('classes', 'background')
OBJECTNESS: tuple[ColumnBlock, ...] = ('foreground', 'background')
SIGMOIDS: tuple[ColumnBlock, ...] = ('sigmoids', 'background_sigmoid')
WITH_PRIOR: tuple[ColumnBlock, ...] = (*SIGMOIDS, 'gumbels')

SOURCES = {
    'softmax': 'C + 1 columns, background last (first in mmdet 1.x)',
    'sigmoid': 'C columns, the prior in the bias, as EQL was released',
    'eqlv2': 'C + 1 sigmoids, background last, as EQLv2 was released',
    'gumbel': 'C columns, the prior in the bias, as GOL was released',
    'seesaw': 'C + 2 columns of SeesawLoss',
    'bags': 'C + G + 2 columns of BalancedGroupSoftmaxLoss',
    'bags-eqlv2': 'C + G + 2 columns by bin, foreground and background last',
    'bags-original': 'C + G + 2 by bin, background and foreground first',
}
"""Values of ``source``, besides 'auto'."""

# Heads and losses of other repositories, in the config of a checkpoint.
FOREIGN = {
    'EQL': 'sigmoid',
    'EQLv2': 'eqlv2',
    'EffectiveClassMarginLoss': 'eqlv2',
    'EquilibriumLoss': 'softmax',
    'LoceShared2FCBBoxHead': 'softmax',
    'GroupSoftmax': 'bags-eqlv2',
    'GSBBoxHeadWith0': 'bags-original',
}
GUMBEL_EVEN = -math.log(math.log(2))  # logit of the probability 1/2
GUMBEL_SLOPE = (GUMBEL_EVEN + math.log(-math.log(PRIOR_PROB))) / math.log(
    1 / PRIOR_PROB - 1
)
# The key use_classif of the losses of GOL's repository.
GOL_ACTIVATIONS = {'gumbel': 'gumbel', 'sigmoid': 'sigmoid'}
LINEAR = {'type': 'Linear'}  # mmdet's default of cls_predictor_cfg
OBJECTNESS_FIRST = {'bags-eqlv2': False, 'bags-original': True}
PAPER_BIN_EDGES = (10, 100, 1000)

FC_CLS = r'(roi_head\.bbox_head(?:\.\d+)?)\.fc_cls\.weight'
FC_CLS_OF_MMDET1 = r'bbox_head(\.\d+)?\.fc_cls\.'
GIVE_SOURCE = 'give longtail convert --source, one of ' + ', '.join(SOURCES)


@dataclass(frozen=True)
class Layout:
    """The columns of a classifier."""

    name: str = field(compare=False)  # for messages
    blocks: tuple[ColumnBlock, ...]
    num_classes: int  # C
    prior_logit: float = 0.0  # constant that the loss adds to its columns
    num_bins: int = 0  # G
    bin_index: tuple[int, ...] | None = None  # (C,), None if unknown

    @property
    def sizes(self) -> list[int]:
        """Number of columns per block."""
        sizes = block_sizes(self.blocks, self.num_classes, self.num_bins)
        return [*sizes.values()]

    def split(self, columns: Tensor) -> dict[ColumnBlock, Tensor]:
        """Split columns (D, F + 1) into blocks, in float64."""
        blocks = columns.double().split(self.sizes)
        return dict(zip(self.blocks, blocks, strict=True))

    def common_blocks(self, other: 'Layout') -> list[ColumnBlock]:
        """Return the blocks that have the same meaning in another layout."""
        if self.bin_index != other.bin_index:
            return []
        return [block for block in other.blocks if block in self.blocks]


def layout_of(
    loss: Any,
    num_classes: int,
    statistics: ClassStatistics | None = None,
    trained_bin_index: Tensor | None = None,
) -> Layout:
    """Return the layout of the loss_cls of a RoI head.

    The bins are those of ``trained_bin_index`` (C,), negative where unknown,
    else those that follow from the statistics of the training set.

    Raises:
        LongTailError: If the columns of the loss are not known.
    """
    name = type(loss).__name__
    # A group softmax with one bin.
    if isinstance(loss, SeesawLoss | SyncSeesawLoss):
        blocks: tuple[ColumnBlock, ...] = ('classes', *OBJECTNESS)
        one_bin = (0,) * num_classes
        return Layout(name, blocks, num_classes, 0.0, 1, one_bin)
    if isinstance(loss, EQLV2Loss):
        return Layout(name, SIGMOIDS, num_classes)
    if isinstance(loss, CrossEntropyLoss) and not loss.use_sigmoid:
        return Layout(name, SOFTMAX, num_classes)
    if not isinstance(loss, LongTailLoss):
        raise LongTailError(
            f'loss_cls={name}: its columns are not known; expected '
            'CrossEntropyLoss with use_sigmoid=False, SeesawLoss, EQLV2Loss '
            'or a loss of mmdet_longtail for RoI heads'
        )
    bin_index = None
    if trained_bin_index is not None and (trained_bin_index >= 0).all():
        bin_index = tuple(trained_bin_index.tolist())
    elif loss.num_bins and statistics is not None:
        bin_index = tuple(loss.derive(statistics)['bin_index'].tolist())
    return Layout(
        name,
        loss.column_blocks,
        num_classes,
        loss.prior_logit,
        loss.num_bins,
        bin_index,
    )


def order_by_block(
    columns: Tensor, layout: Layout, objectness_first: bool
) -> Tensor:
    """Reorder columns (D, F + 1) of BAGS from the order by bin.

    Each bin has ``others``, then its classes in order of label. The eqlv2
    repository stores foreground and background last, the repository of the
    BAGS paper background and foreground first.
    """
    C, G = layout.num_classes, layout.num_bins
    bin_index = np.array(layout.bin_index)
    stored = [[C + g, *np.flatnonzero(bin_index == g)] for g in range(G)]
    if objectness_first:
        stored.insert(0, [C + G + 1, C + G])
    else:
        stored.append([C + G, C + G + 1])
    return columns[np.argsort(np.concatenate(stored))]


def convert_columns(
    columns: Tensor, source: Layout, target: Layout
) -> tuple[Tensor, str]:
    """Convert columns (D, F + 1) to those of another layout (D', F + 1).

    The bins of a source with ``others`` must be known. The text, for logs,
    names the blocks that are kept as they are.
    """
    found = source.split(columns)
    classes, background = to_softmax(found, source)
    sigmoids = classes - background
    gumbels = GUMBEL_SLOPE * sigmoids
    gumbels[:, -1] += GUMBEL_EVEN - target.prior_logit
    sigmoids[:, -1] -= target.prior_logit
    one_half = torch.zeros_like(background)
    one_half[:, -1] -= target.prior_logit
    blocks: dict[ColumnBlock, Tensor] = {
        'classes': classes,
        'sigmoids': sigmoids,
        'gumbels': gumbels,
        'others': background.expand(target.num_bins, -1),
        'foreground': background,
        'background': background,
        'background_sigmoid': one_half,
    }
    for block in source.common_blocks(target):
        blocks[block] = found[block].clone()
        if block in WITH_PRIOR:
            blocks[block][:, -1] += source.prior_logit - target.prior_logit
    converted = {block: blocks[block] for block in target.blocks}
    kept = [
        block
        for block, values in converted.items()
        if block in found and torch.equal(values, found[block])
    ]
    computed = [block for block in converted if block not in kept]
    text = '; '.join(
        f'{", ".join(names)} {how}'
        for names, how in ((kept, 'kept'), (computed, 'computed'))
        if names
    )
    return torch.cat([*converted.values()]).to(columns), text


def to_softmax(
    found: dict[ColumnBlock, Tensor], source: Layout
) -> tuple[Tensor, Tensor]:
    """Convert blocks to classes (C, F + 1) and background (1, F + 1)."""
    if 'sigmoids' in found:
        z = found['sigmoids'].clone()
        z[:, -1] += source.prior_logit
        b = torch.zeros_like(z[:1])
        if 'background_sigmoid' in found:
            b = found['background_sigmoid'].clone()
            b[:, -1] += source.prior_logit
        return z, b
    if 'gumbels' in found:
        z = found['gumbels'].clone()
        z[:, -1] += source.prior_logit - GUMBEL_EVEN
        return z / GUMBEL_SLOPE, torch.zeros_like(z[:1])
    z = found['classes']
    if 'others' in found:
        o = found['others'][torch.tensor(source.bin_index)]
        b = found.get('background', found['others'].mean(0, keepdim=True))
    else:
        o = b = found['background']
    f = found.get('foreground', b)
    return z + (f - o), b


# -- of checkpoints --------------------------------------------------------


def convert_checkpoint(
    checkpoint: Checkpoint,
    config: Config,
    source: str = 'auto',
    class_statistics: ClassStatistics | None = None,
    log: Callable[[str], None] = print,
) -> Checkpoint:
    """Convert each ``fc_cls`` to the layout of the loss in a config.

    The result is for ``load_from`` or a test, not for a resume. It has the
    weights, the classes, the config and, if they are known, the class
    statistics, also in the buffers of the losses. A checkpoint of mmdet 1.x
    gets the names of mmdet 3.x, and loses the box and mask channels of
    background.

    Args:
        checkpoint (Checkpoint): Of mmdet 1.x to 3.x; not changed.
        config (Config): The detector that the result is for.
        source (str): One of ``SOURCES``; 'auto' reads the config that the
            checkpoint carries, else the number of columns.
        class_statistics (ClassStatistics, optional): Counts of the training
            set; by default those that the checkpoint carries. Bins need them.
        log (Callable): Called with one line per classifier.

    Raises:
        LongTailError: If a weight is not finite, if checkpoint and config
            have other classes or layers, if the source is not known, or if
            there are no statistics where bins need them.
    """
    check_choice('convert_checkpoint', 'source', source, 'auto', *SOURCES)
    checkpoint.check_finite()
    heads = bbox_head_configs(config.get('model', {}))
    if not heads:
        raise LongTailError(
            'the config has no model.roi_head.bbox_head, whose fc_cls could '
            'be converted; give the config of a two-stage detector'
        )
    statistics = class_statistics or checkpoint.class_statistics
    with torch.device('meta'):  # for its shapes only
        modules = {name: MODELS.build(head) for name, head in heads.items()}
    num_classes = next(iter(modules.values())).num_classes
    classes = _check_classes(checkpoint, config, num_classes, statistics)
    weights = dict(checkpoint.weights)
    is_mmdet1 = any(re.match(FC_CLS_OF_MMDET1, name) for name in weights)
    if is_mmdet1:
        weights = _convert_mmdet1(weights, num_classes)
    matches = (re.fullmatch(FC_CLS, name) for name in weights)
    found = [match[1] for match in matches if match]
    if {*found} != {*heads}:
        raise LongTailError(
            f'the checkpoint has {", ".join(found) or "no bbox head"} with '
            f'fc_cls, but the config has {", ".join(heads)}: give a '
            'checkpoint and the config of one two-stage detector'
        )
    trained_heads = _trained_heads(checkpoint)
    lines = []
    for layer, head in heads.items():
        own = {
            name.removeprefix(f'{layer}.'): weights.pop(name)
            for name in list(weights)
            if name.startswith((f'{layer}.fc_cls.', f'{layer}.loss_cls.'))
        }
        classifier = _Classifier(
            layer, own, trained_heads.get(layer), num_classes, is_mmdet1
        )
        converted, line = _convert(classifier, head, source, statistics)
        lines.append(line)
        weights |= {f'{layer}.{name}': v for name, v in converted.items()}
    meta: dict[str, Any] = {'cfg': config.pretty_text}
    if classes is not None:
        recorded = checkpoint.meta.get('dataset_meta') or {}
        meta['dataset_meta'] = {
            **{key.lower(): value for key, value in recorded.items()},
            'classes': classes,
        }
    result = Checkpoint(weights, meta, statistics, checkpoint.source)
    for layer, module in modules.items():
        result.check_shapes(module.state_dict(prefix=f'{layer}.').items())
    for line in lines:
        log(line)
    return result


@dataclass(frozen=True)
class _Classifier:
    """The classifier of one RoI head in a checkpoint."""

    layer: str
    weights: dict[str, Tensor]  # of fc_cls and loss_cls
    head: Mapping[str, Any] | None  # its config, where one is carried
    num_classes: int  # C
    is_mmdet1: bool

    @property
    def columns(self) -> Tensor:
        """Weight and bias, or zeros, in one (D, F + 1)."""
        weight = self.weights['fc_cls.weight']
        bias = self.weights.get('fc_cls.bias', torch.zeros_like(weight[:, 0]))
        return torch.cat([weight, bias.unsqueeze(1)], 1)

    def layout(
        self,
        source: str,
        bin_edges: Sequence[float],
        statistics: ClassStatistics | None,
    ) -> Layout:
        """Return the layout of the columns."""
        C = self.num_classes
        name = self._detect_source() if source == 'auto' else source
        bags = dict(type='BalancedGroupSoftmaxLoss', bin_edges=bin_edges)
        loss_cls = {
            None: _loss_config(self.head or {}),
            'softmax': dict(type='CrossEntropyLoss'),
            'sigmoid': dict(type='EqualizationLoss', prior_prob=None),
            'eqlv2': dict(type='EqualizationLossV2', prior_prob=None),
            'gumbel': dict(type='GumbelDropLoss', prior_prob=None),
            'seesaw': dict(type='SeesawLoss'),
        }.get(name, bags)
        if name not in (None, 'softmax'):
            loss_cls['num_classes'] = C
        trained = self.weights.get('loss_cls.bin_index')
        layout = layout_of(MODELS.build(loss_cls), C, statistics, trained)
        if self.is_mmdet1 and layout.blocks == SOFTMAX:
            layout = replace(layout, blocks=SOFTMAX[::-1])
        return replace(layout, name=name or layout.name)

    def _detect_source(self) -> str | None:
        """Return one of ``SOURCES``; None for the loss of ``head``."""
        num_columns, C = len(self.columns), self.num_classes
        if self.head is None:
            by_width = {C + 1: 'softmax', C: 'sigmoid'}
            if num_columns in by_width:
                return by_width[num_columns]
            raise LongTailError(
                f'{self.layer}.fc_cls has {num_columns} columns for {C} '
                'classes, and the checkpoint has no config that explains '
                f'them: {GIVE_SOURCE}'
            )
        loss = _loss_config(self.head)
        names = type_name(self.head), type_name(loss)
        foreign = FOREIGN.get(names[0]) or FOREIGN.get(names[1])
        is_ours = resolve_type(MODELS, loss) is not None
        if 'use_classif' in loss:
            foreign, is_ours = GOL_ACTIVATIONS.get(loss['use_classif']), False
        if foreign is None and not is_ours:
            raise LongTailError(
                f'{self.layer}: the loss_cls of the checkpoint, {names[1]}, '
                f'is not known; {GIVE_SOURCE}'
            )
        return foreign

    def check_columns(self, layout: Layout, target: Layout) -> None:
        """Check the number of columns, and that needed bins are known."""
        needed = [layout] if 'others' in layout.blocks else []
        if layout.num_bins and target.num_bins:
            needed += [target]
        check(
            all(each.bin_index is not None for each in needed),
            f'{self.layer}.fc_cls: the bin of a class follows from class '
            'statistics, and the checkpoint has none: give '
            '--class-statistics FILE, an annotation file of the training set '
            'or a file that tools/class_statistics.py --out wrote',
        )
        found, expected = len(self.columns), sum(layout.sizes)
        bins = f' in {layout.num_bins} bins' if layout.num_bins > 1 else ''
        check(
            found == expected,
            f'{self.layer}.fc_cls has {found} columns, but {layout.name} of '
            f"the config's {layout.num_classes} classes{bins} has {expected}: "
            'the checkpoint is of other classes, of other bin_edges or of '
            f'another --source ({", ".join(SOURCES)})',
        )

    def online_state(self, loss: OnlineState) -> dict[str, Tensor]:
        """Return the state of such a loss, if the checkpoint has all of it."""
        fresh = {f'loss_cls.{k}': v for k, v in loss.online_state().items()}
        found = {k: v for k, v in self.weights.items() if k in fresh}
        fits = all(found[k].shape == fresh[k].shape for k in found)
        return found if fits and found.keys() == fresh.keys() else {}

    def check_predictor(
        self, head: Mapping[str, Any], is_same_layout: bool
    ) -> None:
        """Check that ``fc_cls`` is linear, unless it stays as it is."""
        names = sorted(n for n in self.weights if n.startswith('fc_cls.'))
        found, wanted = (
            type_name(LINEAR | (each or {}).get('cls_predictor_cfg', {}))
            for each in (self.head, head)
        )
        is_linear = found == 'Linear' and len(names) == 2
        # A ScaledLinear begins with the weights of a Linear and scales of 1.
        check(
            (is_same_layout and found == wanted)
            or (is_linear and wanted in ('Linear', 'ScaledLinear')),
            f'{self.layer}: is a {found} with {", ".join(names)} in the '
            f'checkpoint and a {wanted} in the config; only a Linear with '
            'weight and bias can be converted',
        )


def _convert(
    classifier: _Classifier,
    head: Mapping[str, Any],
    source: str,
    statistics: ClassStatistics | None,
) -> tuple[dict[str, Tensor], str]:
    """Convert ``fc_cls`` to a head's, fill ``loss_cls``, and describe it."""
    loss = MODELS.build(_loss_config(head))
    weights = {
        name: value
        for name, value in classifier.weights.items()
        if name.startswith('fc_cls.')
    }
    if isinstance(loss, LongTailLoss) and statistics is not None:
        loss.set_class_statistics(statistics)
        weights |= loss.state_dict(prefix='loss_cls.')
    if isinstance(loss, OnlineState):
        weights |= classifier.online_state(loss)
    target = layout_of(loss, classifier.num_classes, statistics)
    bin_edges = getattr(loss, 'bin_edges', PAPER_BIN_EDGES)
    layout = classifier.layout(source, bin_edges, statistics)
    classifier.check_columns(layout, target)
    classifier.check_predictor(head, layout == target)
    columns = classifier.columns
    if layout.name in OBJECTNESS_FIRST:
        columns = order_by_block(
            columns, layout, OBJECTNESS_FIRST[layout.name]
        )
    converted, text = convert_columns(columns, layout, target)
    weights['fc_cls.weight'] = converted[:, :-1].clone()
    if 'fc_cls.bias' in weights:
        weights['fc_cls.bias'] = converted[:, -1].clone()
    return weights, (
        f'{classifier.layer}.fc_cls: {len(columns)} columns of {layout.name} '
        f'-> {len(converted)} of {target.name}; {text}'
    )


def _loss_config(head: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a head's loss; mmdet's default if it has none."""
    default = dict(type='CrossEntropyLoss', use_sigmoid=False)
    return head.get('loss_cls', default)


def _trained_heads(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the heads of the carried config; none if it is unreadable."""
    try:
        heads = bbox_head_configs((checkpoint.config or {}).get('model', {}))
        types = [_loss_config(head)['type'] for head in heads.values()]
        if not are_configs_trusted():
            check_names([dict(type=name) for name in types])
    # It may be of any version of mmdet.
    except (LongTailError, AttributeError, KeyError, TypeError):
        return {}
    return heads


def _convert_mmdet1(
    weights: Mapping[str, Tensor], num_classes: int
) -> dict[str, Tensor]:
    """Convert names and channels of mmdet 1.x to those of mmdet 3.x.

    There the heads of the second stage stand beside the detector. Background
    is label 0, for boxes and masks too.
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


def _check_classes(
    checkpoint: Checkpoint,
    config: Config,
    num_classes: int,
    statistics: ClassStatistics | None,
) -> tuple[str, ...] | None:
    """Compare the class names, and return those of the checkpoint."""
    named = checkpoint.classes
    counted = statistics.class_names if statistics else None
    owners = {'the checkpoint': named, 'the class statistics': counted}
    for owner, names in owners.items():
        number = num_classes if names is None else len(names)
        check(
            number == num_classes,
            f"{owner}: {number} classes, but num_classes of the config's "
            f'bbox_head is {num_classes}; class rows are kept, so both must '
            'have the same classes',
        )
    of_config = _classes_of_config(config)
    checkpoint.check_classes(of_config, "the config's training set")
    checkpoint.check_classes(counted, 'the class statistics')
    return named if named is not None else of_config


def _classes_of_config(config: Config) -> tuple[str, ...] | None:
    """Return the classes that a config names without an annotation file."""
    loader = config.get('train_dataloader') or {}
    dataset = innermost(loader.get('dataset') or {})
    kind = resolve_type(DATASETS, dataset)
    known, given = getattr(kind, 'METAINFO', {}), dataset.get('metainfo')
    names = {**known, **(given or {})}.get('classes')
    return tuple(names) if isinstance(names, list | tuple) and names else None

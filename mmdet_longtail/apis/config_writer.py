"""Writing the text of configs: what a long-tail method changes in a base."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from yapf.yapflib.yapf_api import (  # type: ignore[import-untyped]
    FormatCode,
)

from mmdet_longtail.apis.runner import load_config
from mmdet_longtail.errors import LongTailError, one_line
from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.structures.suggestions import (
    explain_bin_edges,
    explain_frequency_threshold,
    suggest_bin_edges,
    suggest_frequency_threshold,
)

NAMES = {
    'softmax': 'Softmax',
    'sigmoid': 'Sigmoid cross-entropy',
    'eql': 'Equalization Loss',
    'bags': 'Balanced Group Softmax',
}
"""The methods that configs are written for."""

_STYLE = {
    'based_on_style': 'pep8',
    'split_before_expression_after_opening_paren': True,
}


def code(**items: str) -> str:
    """Spell a dict as configs do.

    Args:
        **items (str): Its values, as code.
    """
    return f'dict({", ".join(f"{k}={v}" for k, v in items.items())})'


def comment(text: str) -> str:
    """Break a text into lines of comment.

    Args:
        text (str): One paragraph.
    """
    return '\n'.join(
        textwrap.wrap(text, 77, initial_indent='# ', subsequent_indent='# ')
    )


def shortest_threshold(statistics: ClassStatistics, threshold: float) -> float:
    """Round a frequency_threshold as far as the tail stays the same.

    Args:
        statistics (ClassStatistics): Counts of the training set.
        threshold (float): In [0, 1].
    """
    tail = statistics.is_tail(threshold).tolist()
    for digits in range(2, 17):
        rounded = float(f'{threshold:.{digits}g}')
        if statistics.is_tail(rounded).tolist() == tail:
            return rounded
    return threshold


def spell_loss(
    method: str, statistics: ClassStatistics
) -> tuple[dict[str, str], str]:
    """Spell the loss_cls of a method.

    Args:
        method (str): 'softmax', 'sigmoid', 'eql' or 'bags'.
        statistics (ClassStatistics): Counts of the training set.

    Returns:
        tuple[dict[str, str], str]: Keys and values as code, and the reason
        for the values.
    """
    if method == 'softmax':
        loss = {'type': "'CrossEntropyLoss'", 'use_sigmoid': 'False'}
        return loss, ''
    num_classes = {'num_classes': 'num_classes'}
    if method == 'bags':
        bin_edges = suggest_bin_edges(statistics)
        return (
            {'type': "'BalancedGroupSoftmaxLoss'"}
            | num_classes
            | {'bin_edges': repr(bin_edges)},
            f'bin_edges: {explain_bin_edges(statistics, bin_edges)}.',
        )
    if method == 'sigmoid':
        threshold = 0.0
        reason = 'plain sigmoid cross-entropy, no class is tail'
    else:
        threshold = shortest_threshold(
            statistics, suggest_frequency_threshold(statistics)
        )
        reason = explain_frequency_threshold(statistics, threshold)
    return (
        {'type': "'EqualizationLoss'"}
        | num_classes
        | {'frequency_threshold': repr(threshold)},
        f'frequency_threshold: {reason}.',
    )


def spell_roi_head(roi_head: Mapping[str, Any], loss: dict[str, str]) -> str:
    """Spell what changes in the RoI head: num_classes and loss_cls.

    A list of heads, as of a cascade, is spelled from the base's list, since
    no dict merges into a list.

    Args:
        roi_head (Mapping): model.roi_head of the base.
        loss (dict[str, str]): What `spell_loss` gives.
    """
    parts = {}
    for name, part in roi_head.items():
        heads = part if isinstance(part, list) else [part]
        if not all(isinstance(h, dict) and 'num_classes' in h for h in heads):
            continue
        changed = {'num_classes': 'num_classes'}
        if name == 'bbox_head' and not is_softmax(heads, loss):
            changed['loss_cls'] = code(
                **({} if isinstance(part, list) else {'_delete_': 'True'}),
                **loss,
            )
        if isinstance(part, list):
            changed_head = code(**changed).replace('dict(', 'dict(head, ', 1)
            parts[name] = (
                f'[{changed_head} for head in _base_.model.roi_head.{name}]'
            )
        else:
            parts[name] = code(**changed)
    return code(**parts)


def is_softmax(
    heads: Iterable[Mapping[str, Any]], loss: Mapping[str, str]
) -> bool:
    """Tell if softmax is wanted and already there.

    Args:
        heads (Iterable[Mapping]): Each bbox_head of the base.
        loss (Mapping[str, str]): What `spell_loss` gives.
    """
    return loss['type'] == "'CrossEntropyLoss'" and all(
        head['loss_cls']['type'] == 'CrossEntropyLoss'
        and not head['loss_cls'].get('use_sigmoid', False)
        for head in heads
    )


def classifier_pattern(config: Config) -> str:
    """Name the classifier of each RoI head for TrainOnlyHook.

    Args:
        config (Config): Of a detector with a RoI head.
    """
    is_cascade = isinstance(config.model.roi_head.bbox_head, list)
    return f'roi_head.bbox_head{".*" if is_cascade else ""}.fc_cls'


def spell_train_only(config: Config) -> str:
    """Spell the hook that lets only the classifier of a detector train.

    Args:
        config (Config): Of a detector with a RoI head.
    """
    return code(
        type="'TrainOnlyHook'", trainable=repr([classifier_pattern(config)])
    )


def tidy(lines: Sequence[str]) -> str:
    """Make a text of lines of code, laid out as configs are.

    Args:
        lines (Sequence[str]): The lines.
    """
    return FormatCode('\n'.join(lines) + '\n', style_config=_STYLE)[0]


def check_roi_head(config: Config, source: str) -> None:
    """Check that a config is of a detector with a classifier of RoIs.

    Args:
        config (Config): The config.
        source (str): Where it is from, for messages.

    Raises:
        LongTailError: If it is not.
    """
    if 'bbox_head' not in config.get('model', {}).get('roi_head', {}):
        raise LongTailError(
            f'{source}: no model.roi_head.bbox_head; take a detector of two '
            'or more stages, such as Faster, Mask or Cascade R-CNN'
        )


def check_model(path: Path) -> None:
    """Build the detector of a config without memory for its weights.

    Args:
        path (Path): File of the config.

    Raises:
        LongTailError: If it cannot be built, or its classifier has not the
            channels that the loss needs.
    """
    config = load_config(path)
    init_default_scope('mmdet')
    try:
        with torch.device('meta'):
            model = MODELS.build(config.model)
    except Exception as error:
        raise LongTailError(
            'the base gives no model that can be built '
            f'({type(error).__name__}: {one_line(error)})'
        ) from error
    found: Any = model.roi_head.bbox_head
    heads: list[Any] = (
        [*found] if isinstance(found, torch.nn.ModuleList) else [found]
    )
    for head in heads:
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

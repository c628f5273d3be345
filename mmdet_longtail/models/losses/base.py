"""mmdet's protocol for a classification loss, written once.

Shapes: N RoIs, C classes (foreground only), D columns of ``fc_cls``.
Labels: 0..C-1 foreground, C background.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from mmdet.models.losses.utils import weight_reduce_loss
from mmdet.registry import TASK_UTILS
from mmengine.logging import print_log
from torch import Tensor, nn

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.losses.sigmoid import sigmoid_probs
from mmdet_longtail.structures.class_statistics import ClassStatistics

ColumnBlock = Literal[
    'classes', 'sigmoids', 'others', 'foreground', 'background'
]


def block_sizes(
    column_blocks: Sequence[ColumnBlock], num_classes: int, num_bins: int = 0
) -> dict[ColumnBlock, int]:
    """Return the number of columns of each block of a classifier.

    Args:
        column_blocks (Sequence[str]): See :class:`LongTailLoss`.
        num_classes (int): C.
        num_bins (int): G. Defaults to 0.
    """
    size = {
        'classes': num_classes,
        'sigmoids': num_classes,
        'others': num_bins,
    }
    return {block: size.get(block, 1) for block in column_blocks}


@functools.cache
def warn_once(message: str) -> None:
    """Log a warning, once per process and message."""
    print_log(message, logger='current', level=logging.WARNING)


def build_choice(
    owner: object, key: str, config: dict[str, Any], choices: Sequence[type]
) -> Callable[..., Any]:
    """Build a part of a loss from its config.

    Args:
        owner (object): The loss, for the message.
        key (str): Its key, for the message.
        config (dict): Config of the part, by its type.
        choices (Sequence[type]): The types that the part can have.

    Raises:
        LongTailError: If it has another type.
    """
    names = [choice.__name__ for choice in choices]
    if config.get('type') not in names:
        raise LongTailError(
            f"{type(owner).__name__}: {key} has the 'type' "
            f'{config.get("type")!r}, expected one of {", ".join(names)}'
        )
    return TASK_UTILS.build(config)


def percent(is_correct: Tensor, is_counted: Tensor) -> Tensor:
    """Return the share of the counted rows that are correct, 0..100."""
    num_correct = (is_correct & is_counted).sum()
    return 100.0 * num_correct / is_counted.sum().clamp(min=1)


class LongTailLoss(nn.Module):
    """Base class of the losses: statistics, precision, reduction, checks.

    A subclass declares its columns as ``column_blocks`` and implements
    :meth:`row_losses`. A loss of several terms overrides :meth:`forward` and
    reduces each term with :meth:`reduce`. A loss that depends on class
    statistics registers the values that follow from them by
    :meth:`add_derived` and computes them in :meth:`derive`. These buffers are
    persistent, so a checkpoint is enough to predict.

    Class attributes:
        column_blocks (tuple[str, ...]): Blocks of columns of ``fc_cls``, in
            order: 'classes' (C logits of a softmax), 'sigmoids' (C logits,
            each against its own background), 'others' (one logit per bin),
            'foreground' and 'background' (one logit each).
        needs_class_statistics (bool): Whether training needs class
            statistics.
        predicts_with_class_statistics (bool): Whether predicting needs them,
            or a checkpoint with what follows from them.
        normalizer (str): 'rows' if the mean is over ``avg_factor`` rows;
            'own' if the loss has terms with normalizers of their own.
        explanation (str): One sentence for a reader of the report who does
            not know the loss.

    Args:
        num_classes (int): Number of foreground classes, C.
        loss_weight (float): Factor of the loss in the detector's sum.
            Defaults to 1.0.
    """

    column_blocks: tuple[ColumnBlock, ...] = ('classes', 'background')
    needs_class_statistics = True
    predicts_with_class_statistics = False
    normalizer = 'rows'
    explanation = ''

    num_bins = 0
    prior_logit = 0.0

    # mmdet asks for a different one of the three in different places.
    custom_cls_channels = True
    custom_activation = True
    custom_accuracy = True
    # DETR heads ask for it when they are built, before anything can raise.
    use_sigmoid = False

    # Whether the loss has a `verifying`, for image-level labels.
    uses_verified_classes = False

    def __init__(self, num_classes: int, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.loss_weight = loss_weight
        self.has_class_statistics = False
        self._derived: list[str] = []

    # -- what a subclass defines ------------------------------------------

    def row_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the unreduced loss (N,) of logits (N, D), labels (N,)."""
        raise NotImplementedError

    def probs(self, logits: Tensor) -> Tensor:
        """Compute probabilities (N, C + 1) of logits (N, D).

        A subclass whose columns are neither one softmax nor sigmoids
        overrides it.
        """
        if self.column_blocks == ('sigmoids',):
            return sigmoid_probs(logits, self.prior_logit)
        if self.is_softmax or self.column_blocks == ('classes',):
            return logits.softmax(1)
        raise NotImplementedError

    def derive(self, statistics: ClassStatistics) -> dict[str, np.ndarray]:
        """Compute the values of the derived buffers, by their names."""
        return {}

    def use_derived(self, derived: dict[str, np.ndarray]) -> None:
        """Rebuild unsaved state from the values of the derived buffers."""

    def check_statistics(self, statistics: ClassStatistics) -> None:
        """Warn about settings that make no sense on these counts."""

    def describe(self, statistics: ClassStatistics) -> dict[str, float]:
        """Return numbers that the settings imply on these counts, to log."""
        return {}

    # -- columns ----------------------------------------------------------

    @property
    def is_softmax(self) -> bool:
        """Whether ``probs`` is a softmax of the classes and background."""
        return self.column_blocks == ('classes', 'background')

    def get_cls_channels(self, num_classes: int) -> int:
        """Return the width D of ``fc_cls``, for mmdet's heads."""
        sizes = block_sizes(self.column_blocks, num_classes, self.num_bins)
        return sum(sizes.values())

    def prepare(self, cls_score: Tensor) -> Tensor:
        """Validate the width of scores and promote half precision.

        Args:
            cls_score (Tensor): Raw scores (N, D).

        Returns:
            Tensor: Logits (N, D), float32 or float64.

        Raises:
            LongTailError: If the width is not D.
        """
        num_channels = self.get_cls_channels(self.num_classes)
        if cls_score.size(1) != num_channels:
            raise LongTailError(
                f'{type(self).__name__}: cls_score has {cls_score.size(1)} '
                f'columns, but num_classes={self.num_classes} needs '
                f'{num_channels}: set the same num_classes in the head and in '
                'loss_cls, and use a head that asks the loss for its channels '
                '(Shared2FCBBoxHead and its relatives do)'
            )
        if cls_score.dtype in (torch.float16, torch.bfloat16):
            return cls_score.float()
        return cls_score

    # -- statistics -------------------------------------------------------

    def add_derived(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Register a persistent buffer that follows from the statistics.

        Its values are at least 0. Until they are known they are nan, or -1 in
        a buffer of integers.

        Args:
            name (str): Name of the buffer, a key of :meth:`derive`.
            shape (tuple[int, ...]): Shape of the buffer.
            dtype (torch.dtype): Defaults to torch.float32.
        """
        unknown = torch.nan if dtype.is_floating_point else -1
        self.register_buffer(name, torch.full(shape, unknown, dtype=dtype))
        self._derived.append(name)

    def set_class_statistics(self, statistics: ClassStatistics) -> None:
        """Set the counts of the training set.

        Args:
            statistics (ClassStatistics): Counts of C classes.

        Raises:
            LongTailError: If they are counts of another number of classes.
        """
        num_counted = statistics.num_classes
        if num_counted != self.num_classes:
            raise LongTailError(
                f'{type(self).__name__}: num_classes is {self.num_classes}, '
                f'but the class statistics count {num_counted} classes: set '
                f'num_classes={num_counted} in the head and in loss_cls, or '
                'give the statistics of this training set'
            )
        derived = self.derive(statistics)
        for name in self._derived:
            getattr(self, name).copy_(torch.as_tensor(derived[name]))
        self.use_derived(derived)
        self.has_class_statistics = True
        self.check_statistics(statistics)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        loaded = {
            name: state_dict[prefix + name].cpu()
            for name in self._derived
            if prefix + name in state_dict
        }
        if not loaded or len(loaded) < len(self._derived):
            return  # a checkpoint of another model
        for name, value in loaded.items():
            if value.shape != getattr(self, name).shape:
                return  # reported by torch
            if not (value >= 0).all():
                return  # saved before statistics were set
        self.use_derived({k: value.numpy() for k, value in loaded.items()})
        self.has_class_statistics = True

    def require_class_statistics(self) -> None:
        """Raise an error if neither statistics nor a checkpoint were given.

        Raises:
            LongTailError: Naming the hook and the missing buffers.
        """
        if not self.has_class_statistics:
            missing = ', '.join(self._derived)
            raise LongTailError(
                f'{type(self).__name__}: there are no class statistics, from '
                f'which {missing} would follow; to train, add '
                "default_hooks=dict(class_statistics=dict(type='"
                "ClassStatisticsHook')) to the config; to test, load a "
                'checkpoint that was trained with this loss'
            )

    # -- what mmdet calls -------------------------------------------------

    def forward(
        self,
        cls_score: Tensor,
        labels: Tensor,
        label_weights: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
    ) -> Tensor | dict[str, Tensor]:
        """Compute the loss, by default its mean over the rows.

        Args:
            cls_score (Tensor): Raw scores (N, D).
            labels (Tensor): Labels (N,).
            label_weights (Tensor, optional): Weights (N,).
            avg_factor (float or Tensor, optional): Divisor of the mean;
                None is the number of rows.
            reduction_override (str, optional): 'mean', 'sum' or 'none'.

        Returns:
            Tensor: 0-dim, or (N,) with 'none'. A loss of several terms
            returns a dict of them.

        Raises:
            LongTailError: See :meth:`prepare`, :meth:`reduce` and
                :meth:`require_class_statistics`.
        """
        if self.needs_class_statistics:
            self.require_class_statistics()
        loss = self.row_losses(self.prepare(cls_score), labels)
        return self.reduce(loss, label_weights, avg_factor, reduction_override)

    def get_activation(self, cls_score: Tensor) -> Tensor:
        """Compute probabilities (N, C + 1), background last.

        Args:
            cls_score (Tensor): Raw scores (N, D).

        Raises:
            LongTailError: See :meth:`prepare` and
                :meth:`require_class_statistics`.
        """
        if self.predicts_with_class_statistics:
            self.require_class_statistics()
        return self.probs(self.prepare(cls_score))

    def get_accuracy(
        self, cls_score: Tensor, labels: Tensor
    ) -> dict[str, Tensor]:
        """Compute the share of foreground RoIs whose class is the best.

        Args:
            cls_score (Tensor): Raw scores (N, D).
            labels (Tensor): Labels (N,).

        Returns:
            dict[str, Tensor]: ``acc_classes``, percent.
        """
        probs = self.get_activation(cls_score)[:, :-1]
        is_foreground = labels < self.num_classes
        return {
            'acc_classes': percent(probs.argmax(1) == labels, is_foreground)
        }

    def reduce(
        self,
        loss: Tensor,
        row_weights: Tensor | None,
        avg_factor: float | Tensor | None,
        reduction_override: str | None,
    ) -> Tensor:
        """Weight and reduce one loss value per row.

        Args:
            loss (Tensor): Unreduced loss (N,).
            row_weights (Tensor, optional): Weights (N,).
            avg_factor (float or Tensor, optional): Divisor of the mean;
                None is the number of rows.
            reduction_override (str, optional): 'mean', 'sum' or 'none';
                None is 'mean'.

        Returns:
            Tensor: 0-dim, or (N,) with 'none'.

        Raises:
            LongTailError: If ``reduction_override`` is something else.
        """
        reduction = reduction_override or 'mean'
        if reduction not in ('mean', 'sum', 'none'):
            raise LongTailError(
                f'{type(self).__name__}: reduction_override is '
                f"{reduction!r}, expected 'mean', 'sum', 'none' or None"
            )
        if reduction != 'mean':
            avg_factor = None
        elif avg_factor is None:
            avg_factor = max(loss.numel(), 1)
        return self.loss_weight * weight_reduce_loss(
            loss, row_weights, reduction, avg_factor
        )

    def extra_repr(self) -> str:
        """Return the settings, for where PyTorch prints the module."""
        return ', '.join(
            f'{name}={value}'
            for name, value in vars(self).items()
            if not name.startswith('_') and name != 'training'
        )

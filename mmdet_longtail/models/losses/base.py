"""mmdet's protocol for a classification loss, written once.

Shapes: N RoIs, C classes (foreground only), D channels of ``fc_cls``.
Labels: 0..C-1 foreground, C background.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmdet.models.losses.utils import weight_reduce_loss
from mmdet.registry import TASK_UTILS
from mmengine.logging import print_log
from torch import Tensor, nn

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.structures.class_statistics import ClassStatistics

COUNTS = (
    'image_count',
    'instance_count',
    'num_images',
    'num_annotated_images',
)


@functools.cache
def warn_once(message: str) -> None:
    """Log a warning the first time that it is said in this process."""
    print_log(message, logger='current', level=logging.WARNING)


def build_choice(
    owner: object, key: str, config: dict[str, Any], choices: Sequence[type]
) -> Callable[..., Any]:
    """Build one of the small parts that a loss has a choice of.

    Args:
        owner (object): The loss, for the message.
        key (str): Its key, for the message.
        config (dict): The part, by its type.
        choices (Sequence[type]): What it may be.

    Raises:
        LongTailError: If it is something else.
    """
    names = [choice.__name__ for choice in choices]
    if config.get('type') not in names:
        raise LongTailError(
            f"{type(owner).__name__}: {key} has the 'type' "
            f'{config.get("type")!r}, expected one of {", ".join(names)}'
        )
    return TASK_UTILS.build(config)


def percent(is_correct: Tensor, is_counted: Tensor) -> Tensor:
    """Share of the counted rows that are correct, 0..100, without a sync."""
    num_correct = (is_correct & is_counted).sum()
    return 100.0 * num_correct / is_counted.sum().clamp(min=1)


class LongTailLoss(nn.Module):
    """Base class of the losses: statistics, precision, reduction, checks.

    A subclass implements :meth:`row_losses`, and :meth:`get_activation` on
    the output of :meth:`prepare`, and derives what it needs from the counts
    in :meth:`derive`. A loss of several terms has a :meth:`forward` of its
    own, which reduces each with :meth:`reduce`.

    The counts are persistent buffers, so a checkpoint is enough for
    inference and for resuming.

    Args:
        num_classes (int): Number of foreground classes, C.
        loss_weight (float): Factor of the loss in the detector's sum.
            Defaults to 1.0.
    """

    # mmdet asks for a different one of the three in different places.
    custom_cls_channels = True
    custom_activation = True
    custom_accuracy = True
    # DETR heads ask for it when they are built, before anything can refuse.
    use_sigmoid = False

    # Whether the loss has a `verifying`, for image-level labels.
    uses_verified_classes = False

    image_count: Tensor
    instance_count: Tensor
    num_images: Tensor
    num_annotated_images: Tensor

    def __init__(self, num_classes: int, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.loss_weight = loss_weight
        self.has_class_statistics = False
        for name in COUNTS:
            shape = (num_classes,) if name.endswith('_count') else ()
            self.register_buffer(name, torch.zeros(shape, dtype=torch.int64))

    # -- what a subclass defines ------------------------------------------

    def get_cls_channels(self, num_classes: int) -> int:
        """Width D of ``fc_cls``; mmdet calls it while it builds the head."""
        raise NotImplementedError

    def get_activation(self, cls_score: Tensor) -> Tensor:
        """Probabilities (N, C + 1) of raw scores (N, D), background last."""
        raise NotImplementedError

    def row_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Unreduced loss of each row (N,), of logits (N, D), labels (N,)."""
        raise NotImplementedError

    def derive(self, statistics: ClassStatistics) -> None:
        """Recompute what follows from the counts; never saved."""
        raise NotImplementedError

    def check_statistics(self, statistics: ClassStatistics) -> None:
        """Warn about settings that make no sense on these counts."""

    def describe(self, statistics: ClassStatistics) -> dict[str, float]:
        """Say in numbers what the settings mean on these counts, for logs."""
        return {}

    def forward(
        self,
        cls_score: Tensor,
        labels: Tensor,
        label_weights: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
    ) -> Tensor | dict[str, Tensor]:
        """The loss, by default its mean over the rows.

        Args:
            cls_score (Tensor): Raw scores (N, D).
            labels (Tensor): Labels (N,).
            label_weights (Tensor, optional): Weights (N,).
            avg_factor (float or Tensor, optional): Divisor of the mean;
                None is the number of rows.
            reduction_override (str, optional): 'mean', 'sum' or 'none'.

        Returns:
            Tensor: 0-dim, or (N,) with 'none'. A loss of several terms gives
            a dict of them.

        Raises:
            LongTailError: See :meth:`prepare` and :meth:`reduce`.
        """
        loss = self.row_losses(self.prepare(cls_score), labels)
        return self.reduce(loss, label_weights, avg_factor, reduction_override)

    # -- statistics -------------------------------------------------------

    def set_class_statistics(self, statistics: ClassStatistics) -> None:
        """Take the counts of the training set.

        Args:
            statistics (ClassStatistics): Counts of C classes.

        Raises:
            LongTailError: If they are counts of another number of classes.
        """
        num_counted = len(statistics.class_names)
        if num_counted != self.num_classes:
            raise LongTailError(
                f'{type(self).__name__}: num_classes is {self.num_classes}, '
                f'but the class statistics count {num_counted} classes: set '
                f'num_classes={num_counted} in the head and in loss_cls, or '
                'give the statistics of this training set'
            )
        for name in COUNTS:
            buffer = getattr(self, name)
            buffer.copy_(torch.tensor(getattr(statistics, name)))
        self.derive(statistics)
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
        counts = {
            name: state_dict[prefix + name].cpu()
            for name in COUNTS
            if prefix + name in state_dict
        }
        if len(counts) < len(COUNTS) or not counts['num_images']:
            return  # a checkpoint of another model, or before its statistics
        if len(counts['image_count']) != self.num_classes:
            return  # reported by the shape of the buffer
        self.derive(
            ClassStatistics(
                class_names=tuple(map(str, range(self.num_classes))),
                image_count=counts['image_count'].numpy(),
                instance_count=counts['instance_count'].numpy(),
                num_images=int(counts['num_images']),
                num_annotated_images=int(counts['num_annotated_images']),
            )
        )
        self.has_class_statistics = True

    # -- tensors ----------------------------------------------------------

    def prepare(self, cls_score: Tensor) -> Tensor:
        """Check the scores and promote half precision to float32.

        Args:
            cls_score (Tensor): Raw scores (N, D).

        Returns:
            Tensor: Logits (N, D), float32 or float64.

        Raises:
            LongTailError: If the width is not D, or no statistics have come.
        """
        name = type(self).__name__
        num_channels = self.get_cls_channels(self.num_classes)
        if cls_score.size(1) != num_channels:
            raise LongTailError(
                f'{name}: cls_score has {cls_score.size(1)} columns, '
                f'but num_classes={self.num_classes} needs {num_channels}: '
                'set the same num_classes in the head and in loss_cls, and '
                'use a head that asks the loss for its channels '
                '(Shared2FCBBoxHead and its relatives do)'
            )
        if not self.has_class_statistics:
            raise LongTailError(
                f'{name}: there are no class statistics; to train, add '
                "default_hooks=dict(class_statistics=dict(type='"
                "ClassStatisticsHook')) to the config; to test, load a "
                'checkpoint that was trained with this loss'
            )
        if cls_score.dtype in (torch.float16, torch.bfloat16):
            return cls_score.float()
        return cls_score

    def reduce(
        self,
        loss: Tensor,
        row_weights: Tensor | None,
        avg_factor: float | Tensor | None,
        reduction_override: str | None,
    ) -> Tensor:
        """Weight and reduce one loss value a row.

        Args:
            loss (Tensor): Unreduced loss (N,).
            row_weights (Tensor, optional): Weights (N,).
            avg_factor (float or Tensor, optional): Divisor of the mean;
                None stands for the number of rows.
            reduction_override (str, optional): 'mean', 'sum' or 'none';
                None stands for 'mean'.

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
        if reduction == 'mean' and avg_factor is None:
            avg_factor = max(loss.numel(), 1)
        return self.loss_weight * weight_reduce_loss(
            loss,
            row_weights,
            reduction,
            avg_factor if reduction == 'mean' else None,
        )

    def get_accuracy(
        self, cls_score: Tensor, labels: Tensor
    ) -> dict[str, Tensor]:
        """How many foreground RoIs have their class first among classes.

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

    def extra_repr(self) -> str:
        """Show the settings where PyTorch prints the module."""
        return (
            f'num_classes={self.num_classes}, loss_weight={self.loss_weight}'
        )

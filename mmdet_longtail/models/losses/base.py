"""Base class of the losses: mmdet's protocol for a classification loss.

Shapes: N RoIs, C classes (foreground only), D columns of ``fc_cls``.
Labels: 0..C-1 foreground, C background.
"""

import functools
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from mmdet.models.losses.utils import weight_reduce_loss
from mmdet.registry import TASK_UTILS
from mmengine.logging import print_log
from torch import Tensor, nn

from mmdet_longtail.errors import check
from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.utils.checks import check_choice, check_numbers
from mmdet_longtail.utils.registry import is_type

ColumnBlock = Literal[
    'classes',
    'sigmoids',
    'gumbels',
    'others',
    'foreground',
    'background',
    'background_sigmoid',
]


def block_sizes(
    column_blocks: Sequence[ColumnBlock], num_classes: int, num_bins: int = 0
) -> dict[ColumnBlock, int]:
    """Return the number of columns of each block of :class:`LongTailLoss`."""
    C = num_classes
    size = dict(classes=C, sigmoids=C, gumbels=C, others=num_bins)
    return {block: size.get(block, 1) for block in column_blocks}


@functools.cache
def warn_once(message: str) -> None:
    """Log a warning, once per process and message."""
    print_log(message, logger='current', level=logging.WARNING)


def build_choice(
    owner: object, key: str, config: dict[str, Any], choices: Sequence[type]
) -> Callable[..., Any]:
    """Build one of several registered parts of a loss, the owner.

    Raises:
        LongTailError: If the config, the owner's ``key``, has another type.
    """
    names = [choice.__name__ for choice in choices]
    key = f"'type' of {key}"
    if not is_type(TASK_UTILS, config, *choices):
        check_choice(type(owner).__name__, key, config.get('type'), *names)
    return TASK_UTILS.build(config)


def percent(is_correct: Tensor, is_counted: Tensor) -> Tensor:
    """Return the share of the counted rows that are correct, 0..100."""
    num_correct = (is_correct & is_counted).sum()
    return 100.0 * num_correct / is_counted.sum().clamp(min=1)


class ImageLevelLabels:
    """Mixin of losses and bbox heads that use image-level labels.

    The labels are bool: the classes that the image of each row was checked
    for (N, C), and in a head the classes of each image of the batch (B, C).
    """

    verified_classes: Tensor | None = None

    @contextmanager
    def verifying(self, verified_classes: Tensor) -> Iterator[None]:
        """Use image-level labels in the calls within."""
        self.verified_classes = verified_classes
        try:
            yield
        finally:
            self.verified_classes = None


class DenseHeadLoss:
    """Mixin of losses for dense and DETR heads.

    These heads read ``use_sigmoid``, build C channels, apply their own
    sigmoid and bring their own bias prior.
    """

    custom_cls_channels = False
    custom_activation = False
    custom_accuracy = False
    uses_verified_classes = False

    def set_use_sigmoid(self, use_sigmoid: bool) -> None:
        """Set the key of the config that the heads look for.

        Raises:
            LongTailError: If it is not True.
        """
        check(
            use_sigmoid,
            f'{type(self).__name__}: use_sigmoid is False, expected True: '
            'with False the head builds a background channel',
        )
        self.use_sigmoid = True


class LongTailLoss(nn.Module):
    """Base class of the losses: statistics, precision, reduction, checks.

    A subclass declares its columns as ``column_blocks`` and implements
    :meth:`row_losses`. A loss of several terms overrides :meth:`forward` and
    reduces each term with :meth:`reduce`. A loss that depends on class
    statistics registers the values that follow from them by
    :meth:`add_derived` and computes them in :meth:`derive`. These buffers are
    persistent, so a checkpoint is enough to predict.

    Args:
        num_classes (int): Number of foreground classes, C; of every loss.
        loss_weight (float): Factor of the loss in the detector's sum, of
            every loss, finite and at least 0. Defaults to 1.0.

    Raises:
        LongTailError: If a value of a loss lies outside its range.

    Examples:
        >>> class PlainLoss(LongTailLoss):
        ...     needs_class_statistics = False
        ...     def row_losses(self, logits, labels):
        ...         return nn.functional.cross_entropy(
        ...             logits, labels, reduction='none'
        ...         )
        >>> loss = PlainLoss(num_classes=2)
        >>> loss.get_cls_channels(2)
        3
        >>> loss(torch.zeros(1, 3), torch.tensor([2]))
        tensor(1.0986)
        >>> loss.get_activation(torch.zeros(1, 3))
        tensor([[0.3333, 0.3333, 0.3333]])
    """

    # Blocks of columns of fc_cls, in order: 'classes' (C logits of a softmax),
    # 'sigmoids' (C logits, each against its own background), 'gumbels' (the
    # same by the Gumbel distribution), 'others' (one logit per bin),
    # 'foreground' and 'background' (one logit each), and
    # 'background_sigmoid' (one logit, against all objects).
    column_blocks: tuple[ColumnBlock, ...] = ('classes', 'background')
    # Whether training, and predicting without a checkpoint, needs them.
    needs_class_statistics = True
    predicts_with_class_statistics = False
    normalizer = 'rows'  # of avg_factor, or 'own' per term
    explanation = ''  # one sentence for readers of the report
    num_bins = 0
    prior_logit = 0.0
    uses_verified_classes = False  # whether the loss has ImageLevelLabels
    needs_verified_classes = False  # whether it is pointless without them
    takes_quality = False  # whether its targets are labels and IoUs

    # What to name in an error about the other kind of head.
    loss_for_dense_heads = 'DenseEqualizationLoss'
    loss_for_roi_heads = 'EqualizationLoss'

    # mmdet reads a different one of the three in different places.
    custom_cls_channels = True
    custom_activation = True
    custom_accuracy = True
    # DETR heads read it when they are built, before any check can raise.
    use_sigmoid = False

    def __init__(self, num_classes: int, loss_weight: float = 1.0) -> None:
        super().__init__()
        name = type(self).__name__
        check_numbers(name, '[0, inf)', loss_weight=loss_weight)
        check(
            isinstance(num_classes, int) and num_classes >= 1,
            f'{name}: num_classes is {num_classes!r}, expected the number of '
            'foreground classes, an integer of at least 1',
        )
        self.num_classes = num_classes
        self.loss_weight = loss_weight
        self.has_class_statistics = False
        self._derived: list[str] = []

    def set_prior_prob(self, prior_prob: float | None) -> None:
        """Add the logit of a probability to the scores; None adds nothing.

        Raises:
            LongTailError: If prior_prob lies outside (0, 1).
        """
        if prior_prob is not None:
            check_numbers(type(self).__name__, '(0, 1)', prior_prob=prior_prob)
            self.prior_logit = math.log(prior_prob / (1 - prior_prob))

    # -- what a subclass defines ------------------------------------------

    def row_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the unreduced loss (N,) of logits (N, D), labels (N,)."""
        raise NotImplementedError

    def probs(self, logits: Tensor) -> Tensor:
        """Compute probabilities (N, C + 1) of a softmax or of sigmoids."""
        if self.column_blocks == ('sigmoids',):
            # Background has the logit -inf, so its probability is 0.
            background = logits.new_full((logits.size(0), 1), -math.inf)
            z = torch.cat([logits, background], 1)
            return z.add_(self.prior_logit).sigmoid_()
        if self.column_blocks == ('sigmoids', 'background_sigmoid'):
            p = (logits + self.prior_logit).sigmoid()
            return torch.cat([p[:, :-1] * (1 - p[:, -1:]), p[:, -1:]], 1)
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

    def describe_classes(self, statistics: ClassStatistics) -> list[str]:
        """Return lines that name the classes which the settings single out."""
        return []

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
        """Return scores (N, D) as logits of at least single precision.

        Raises:
            LongTailError: If the width is not D.
        """
        num_channels = self.get_cls_channels(self.num_classes)
        check(
            cls_score.size(-1) == num_channels,
            f'{type(self).__name__}: cls_score has {cls_score.size(-1)} '
            f'columns, but num_classes={self.num_classes} needs '
            f'{num_channels}: set the same num_classes in the head and in '
            'loss_cls, and use a head that takes its number of columns from '
            'the loss, such as Shared2FCBBoxHead',
        )
        dtype = torch.promote_types(cls_score.dtype, torch.float32)
        return cls_score.to(dtype)

    # -- statistics -------------------------------------------------------

    def add_derived(
        self, name: str, shape: tuple[int, ...], dtype: Any = torch.float32
    ) -> None:
        """Register a persistent buffer that follows from the statistics.

        Its values, at least 0, are those of this name in :meth:`derive`.
        Until they are known they are nan, or -1 in a buffer of integers.
        """
        unknown = torch.nan if dtype.is_floating_point else -1
        self.register_buffer(name, torch.full(shape, unknown, dtype=dtype))
        self._derived.append(name)

    def set_class_statistics(self, statistics: ClassStatistics) -> None:
        """Set the counts of the training set.

        Raises:
            LongTailError: If they are counts of another number of classes.
        """
        num_counted = statistics.num_classes
        check(
            num_counted == self.num_classes,
            f'{type(self).__name__}: num_classes is {self.num_classes}, but '
            f'the class statistics count {num_counted} classes: set '
            f'num_classes={num_counted} in the head and in loss_cls, or give '
            'the statistics of this training set',
        )
        derived = self.derive(statistics)
        for name in self._derived:
            getattr(self, name).copy_(torch.as_tensor(derived[name]))
        self.use_derived(derived)
        self.has_class_statistics = True
        self.check_statistics(statistics)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        loaded = {
            name: state_dict[prefix + name].cpu().numpy()
            for name in self._derived
            if prefix + name in state_dict
        }
        # torch reports what is missing or has another shape; what was saved
        # before statistics were set is negative or nan.
        if len(loaded) == len(self._derived) > 0 and all(
            value.shape == getattr(self, name).shape and (value >= 0).all()
            for name, value in loaded.items()
        ):
            self.use_derived(loaded)
            self.has_class_statistics = True

    def require_class_statistics(self) -> None:
        """Raise an error if neither statistics nor a checkpoint were given."""
        check(
            self.has_class_statistics,
            f'{type(self).__name__}: there are no class statistics, from '
            f'which {", ".join(self._derived)} would follow; to train, add '
            "default_hooks=dict(class_statistics=dict(type='"
            "ClassStatisticsHook')) to the config; to test, load a "
            'checkpoint that was trained with this loss',
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
            LongTailError: If the width is not D, class statistics are needed
                and missing, or reduction_override is another.
        """
        if self.needs_class_statistics:
            self.require_class_statistics()
        loss = self.row_losses(self.prepare(cls_score), labels)
        return self.reduce(loss, label_weights, avg_factor, reduction_override)

    def get_activation(self, cls_score: Tensor) -> Tensor:
        """Compute probabilities (N, C + 1) of scores (N, D), background last.

        Scores of a batch of images (B, N, D), as exporters pass them, give
        (B, N, C + 1). It raises the errors of :meth:`forward`.
        """
        if self.predicts_with_class_statistics:
            self.require_class_statistics()
        rows = self.prepare(cls_score.flatten(0, -2))
        return self.probs(rows).unflatten(0, cls_score.shape[:-1])

    @torch.no_grad()
    def get_accuracy(
        self, cls_score: Tensor, labels: Tensor
    ) -> dict[str, Tensor]:
        """Compute ``acc_classes``, percent, among foreground RoIs."""
        predicted = self.get_activation(cls_score)[:, :-1].argmax(1)
        is_foreground = labels < self.num_classes
        return {'acc_classes': percent(predicted == labels, is_foreground)}

    def reduce(
        self,
        loss: Tensor,
        row_weights: Tensor | None,
        avg_factor: float | Tensor | None,
        reduction_override: str | None,
    ) -> Tensor:
        """Weight (N,) and reduce an unreduced loss (N,), as in `forward`."""
        reduction = reduction_override or 'mean'
        name, choices = type(self).__name__, ('mean', 'sum', 'none')
        check_choice(name, 'reduction_override', reduction, *choices)
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

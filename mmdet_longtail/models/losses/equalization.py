"""Equalization Loss (EQL) and Softmax Equalization Loss (SEQL).

Tan et al., Equalization Loss for Long-Tailed Object Recognition, CVPR 2020,
https://arxiv.org/abs/2003.05176

Shapes: N RoIs, C classes, D columns. Labels: 0..C-1 foreground, C background.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS, TASK_UTILS
from torch import Tensor

from mmdet_longtail.models.losses.base import (
    ColumnBlock,
    DenseHeadLoss,
    ImageLevelLabels,
    LongTailLoss,
    build_choice,
    warn_once,
)
from mmdet_longtail.models.losses.sigmoid import WeightedSigmoidCrossEntropy
from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.structures.suggestions import suggest_settings
from mmdet_longtail.structures.tail_weight import (
    TAIL_WEIGHTS,
    TailWeight,
    ThresholdTailWeight,
)
from mmdet_longtail.utils.checks import check_numbers
from mmdet_longtail.utils.class_names import list_names

for _form in TAIL_WEIGHTS:
    TASK_UTILS.register_module(module=_form)


class TailLoss(LongTailLoss):
    """Base class of the equalization losses: lambda and T(f).

    The arguments are those of :class:`EqualizationLoss`. A subclass names the
    loss that is left without a tail as ``plain``.
    """

    plain: str

    tail_weight: Tensor

    def __init__(
        self,
        num_classes: int,
        frequency_threshold: float | None = None,
        tail_ratio: float = 0.091,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(num_classes, loss_weight)
        ratios = {'tail_ratio': tail_ratio}
        if frequency_threshold is not None:
            ratios['frequency_threshold'] = frequency_threshold
        check_numbers(type(self).__name__, '[0, 1]', **ratios)
        self.frequency_threshold = frequency_threshold
        self.tail_ratio = tail_ratio
        self.decay: TailWeight = ThresholdTailWeight()
        self.add_derived('tail_weight', (num_classes,))

    def threshold(self, statistics: ClassStatistics) -> float:
        """Return lambda: the given one, else from the tail ratio."""
        if self.frequency_threshold is not None:
            return self.frequency_threshold
        if self.tail_ratio == 0:
            return 0.0
        return statistics.threshold_for_tail_ratio(self.tail_ratio)

    def derive(self, statistics: ClassStatistics) -> dict[str, np.ndarray]:
        """Compute T(f) of each class."""
        T = self.decay(statistics.image_frequency)
        return {'tail_weight': self.is_tail(statistics) * T}

    def is_tail(self, statistics: ClassStatistics) -> np.ndarray:
        """Return the mask of tail classes, (C,)."""
        return self.decay.is_tail(statistics, self.threshold(statistics))

    def check_statistics(self, statistics: ClassStatistics) -> None:
        """Warn if lambda spares no class, or all."""
        (key, threshold), (_, tail_ratio), (_, num_tail) = self.describe(
            statistics
        ).items()
        effect = ''
        if num_tail == self.num_classes:
            effect = 'no class suppresses another'
        elif tail_ratio < 0.005:
            effect = f'this is plain {self.plain}'
        if not effect or threshold == 0:
            return
        settings = suggest_settings(statistics)
        suggested, reason = settings['frequency_threshold']
        way_out = f'use a plain loss ({reason})'
        if suggested is not None:
            is_tail = self.is_tail(statistics)
            if np.array_equal(is_tail, statistics.is_tail(suggested)):
                return  # As long a tail as this data allows.
            way_out = (
                f'this data suggests frequency_threshold={suggested:g} '
                f'({reason})'
            )
        warn_once(
            f'{type(self).__name__}: {key}={threshold:.3g} '
            f'makes {num_tail} of {self.num_classes} classes tail, tail ratio '
            f'{tail_ratio:.2%}: {effect}; {way_out}'
        )

    def describe(self, statistics: ClassStatistics) -> dict[str, float]:
        """Return lambda, the tail ratio and the number of tail classes."""
        is_tail = self.is_tail(statistics)
        return {
            **self.decay.describe(self.threshold(statistics)),
            'tail_ratio': statistics.image_share(is_tail),
            'num_tail_classes': int(is_tail.sum()),
        }

    def describe_classes(self, statistics: ClassStatistics) -> list[str]:
        """Return a line with lambda and the first tail classes."""
        (key, threshold), (_, tail_ratio), (_, num_tail) = self.describe(
            statistics
        ).items()
        order = np.argsort(statistics.image_count, kind='stable')
        order = order[self.is_tail(statistics)[order]]
        names = list_names([statistics.class_names[c] for c in order], 5)
        return [
            f'{key} (lambda) is {threshold:.4g}: {num_tail:,} '
            f'of {self.num_classes:,} classes are tail, tail ratio '
            f'{tail_ratio:.2%}{names and ": "}{names}'
        ]


def keep_positives(weight: Tensor, labels: Tensor) -> None:
    """Set the weight (N, C) of each row's label (N,) to 1, in place.

    An index costs less than y as a matrix.
    """
    C = weight.size(1)
    true_class = labels.clamp(max=C - 1).unsqueeze(1)  # (N, 1)
    y = (labels < C).unsqueeze(1)  # (N, 1), of the true class
    found = weight.gather(1, true_class)
    weight.scatter_(1, true_class, torch.where(y, 1.0, found))


def equalization_weight(
    labels: Tensor,
    tail_weight: Tensor,
    exclude_background: bool = True,
    verified_classes: Tensor | None = None,
) -> Tensor:
    r"""Compute the weight w_j of each row and class.

    .. math::
        w_j = 1 - E(r)\, T_\lambda(f_j)\, (1 - y_j)

    (Eq. 6). E(r) is 1 for a foreground RoI: its negatives spare the tail; the
    background's do not. Of a class that the row's image was checked for, w_j
    is 1 (section 4.2).

    Args:
        labels (Tensor): Labels (N,).
        tail_weight (Tensor): T(f) of each class (C,), 0..1; 1 is tail.
        exclude_background (bool): Whether E(r) is 0 for background; without
            it, background spares the tail too. Defaults to True.
        verified_classes (Tensor, optional): Classes that the image of each
            row was checked for, bool (N, C).

    Returns:
        Tensor: (N, C), of the type of ``tail_weight``.

    Examples:
        >>> labels = torch.tensor([0, 2])  # dog, background
        >>> equalization_weight(labels, torch.tensor([0.0, 1.0]))
        tensor([[1., 0.],
                [1., 1.]])
    """
    T = tail_weight  # (C,)
    is_foreground = labels < len(T)  # (N,)
    E = is_foreground if exclude_background else torch.ones_like(labels)
    # 1 - E T in one pass over (N, C), as E is 0 or 1 and T is 0..1.
    w = torch.maximum(1 - T, 1 - E.to(T).unsqueeze(1))
    keep_positives(w, labels)
    if verified_classes is not None:
        w.masked_fill_(verified_classes, 1.0)
    return w


def equalization_loss(
    logits: Tensor,
    labels: Tensor,
    tail_weight: Tensor,
    prior_logit: float = 0.0,
    exclude_background: bool = True,
    verified_classes: Tensor | None = None,
) -> Tensor:
    r"""Compute sigmoid cross-entropy that spares tail classes.

    .. math::
        L = -\sum_j w_j \log \hat p_j

    with p^_j = p_j where y_j = 1 and 1 - p_j elsewhere (Eq. 5), and w of
    :func:`equalization_weight`.

    Args:
        logits (Tensor): Raw scores z (N, C).
        labels (Tensor): Labels (N,).
        tail_weight (Tensor): T(f) of each class (C,), 0..1; 1 is tail.
        prior_logit (float): Constant added to the logits. Defaults to 0.0.
        exclude_background (bool): As in :func:`equalization_weight`.
        verified_classes (Tensor, optional): As there.

    Returns:
        Tensor: Loss of each row (N,), summed over the classes.

    Examples:
        >>> labels = torch.tensor([0, 2])  # dog, background
        >>> tail_weight = torch.tensor([0.0, 1.0])
        >>> equalization_loss(torch.zeros(2, 2), labels, tail_weight)
        tensor([0.6931, 1.3863])
    """
    w = equalization_weight(
        labels, tail_weight.to(logits), exclude_background, verified_classes
    )
    return WeightedSigmoidCrossEntropy.apply(logits, labels, w, prior_logit)


@MODELS.register_module()
class EqualizationLoss(TailLoss, ImageLevelLabels):
    """Equalization Loss for RoI heads; C sigmoid channels, no background.

    The logits get a constant, logit(prior_prob), at training and at test:
    a head that starts at zero then predicts ``prior_prob``, where C sigmoids
    at 0.5 would start with a loss of C log 2.

    Args:
        frequency_threshold (float, optional): lambda, a share of the images,
            0..1: classes with image_frequency < lambda are tail. 0 is plain
            sigmoid cross-entropy. None derives it from ``tail_ratio``.
        tail_ratio (float): Largest share of image_count, 0..1, that tail
            classes may hold when lambda is derived; the paper's Table 2 is
            best at 9 % (915 classes of LVIS v0.5). Defaults to 0.091.
        prior_prob (float, optional): Probability of a zero logit, between 0
            and 1; None adds no constant, as in the paper, whose code has it
            in the bias. Defaults to 0.001.
        tail_weight (dict, optional): Config of T(f): ThresholdTailWeight,
            ExponentialTailWeight or GompertzTailWeight (Table 3), or
            InstanceCountTailWeight, whose lambda is a number of boxes.
            Defaults to None, the threshold.
        exclude_background (bool): E(r): whether background RoIs keep all
            their negatives (Table 4). Defaults to True.

    Examples:
        >>> statistics = ClassStatistics(
        ...     ('dog', 'ibex'), [90, 2], [120, 3], 100, 91
        ... )
        >>> loss = EqualizationLoss(num_classes=2, tail_ratio=0.1)
        >>> loss.set_class_statistics(statistics)
        >>> loss(torch.zeros(1, 2), torch.tensor([0]))
        tensor(6.9078)
        >>> loss.tail_weight
        tensor([0., 1.])
        >>> loss.get_activation(torch.zeros(1, 2))
        tensor([[0.0010, 0.0010, 0.0000]])
    """

    column_blocks: tuple[ColumnBlock, ...] = ('sigmoids',)
    explanation = (
        'one yes-or-no question per class. A box of another class no longer '
        'pushes the classes down that are in few training images; only '
        'background does.'
    )
    plain = 'sigmoid cross-entropy'
    uses_verified_classes = True

    def __init__(
        self,
        *args: Any,
        prior_prob: float | None = 0.001,
        tail_weight: dict[str, Any] | None = None,
        exclude_background: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__(*args, **settings)
        self.exclude_background = exclude_background
        if tail_weight is not None:
            decay: Any = build_choice(
                self, 'tail_weight', tail_weight, TAIL_WEIGHTS
            )
            self.decay = decay
        self.set_prior_prob(prior_prob)

    def row_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute :func:`equalization_loss`."""
        return equalization_loss(
            logits,
            labels,
            self.tail_weight,
            self.prior_logit,
            self.exclude_background,
            self.verified_classes,
        )


@MODELS.register_module()
class DenseEqualizationLoss(DenseHeadLoss, EqualizationLoss):
    """Equalization Loss for dense and DETR heads.

    These heads bring their own bias prior, so this loss adds none.

    Args:
        use_sigmoid (bool): Must be True; the heads look for the key.
        **settings: The other arguments of EqualizationLoss, but prior_prob.

    Examples:
        >>> statistics = ClassStatistics(
        ...     ('dog', 'ibex'), [90, 2], [120, 3], 100, 91
        ... )
        >>> loss = DenseEqualizationLoss(2, tail_ratio=0.1, use_sigmoid=True)
        >>> loss.set_class_statistics(statistics)
        >>> loss(torch.zeros(1, 2), torch.tensor([0]))
        tensor(0.6931)
    """

    def __init__(self, *args: Any, use_sigmoid: bool, **settings: Any) -> None:
        super().__init__(*args, prior_prob=None, **settings)
        self.set_use_sigmoid(use_sigmoid)


# -- the softmax form of section 3.3 -----------------------------------------


def sample_ignored(
    labels: Tensor, tail_weight: Tensor, ignore_probability: float
) -> Tensor:
    """Draw the columns that leave the softmax of each row.

    Their w~_k = 1 - beta T(f_k) (1 - y_k) is 0 (Eq. 11); beta is 1 with
    probability gamma, drawn per row and class. The true class stays.

    Args:
        labels (Tensor): The true column of each row (N,).
        tail_weight (Tensor): T(f) of each column (D,), 1 for tail classes
            and 0 for the others and background.
        ignore_probability (float): gamma, 0..1.

    Returns:
        Tensor: Bool (N, D).
    """
    shape = (len(labels), len(tail_weight))
    # A draw below gamma T is one of beta = 1 where T = 1; gamma = 1 is always.
    draw = torch.rand(shape, device=labels.device)
    beta = draw < ignore_probability * tail_weight
    return beta.scatter(1, labels.unsqueeze(1), False)


def softmax_equalization_loss(
    logits: Tensor, labels: Tensor, is_ignored: Tensor
) -> Tensor:
    r"""Compute softmax cross-entropy without the ignored columns.

    .. math::
        L = -\log \tilde p_y, \qquad
        \tilde p_j = \frac{e^{z_j}}{\sum_k \tilde w_k e^{z_k}}

    (Eq. 9 and 10) with w~_k = 0 for ignored columns and 1 for the rest.

    Args:
        logits (Tensor): Raw scores z (N, D).
        labels (Tensor): The true column of each row (N,), never ignored.
        is_ignored (Tensor): Bool (N, D).

    Returns:
        Tensor: Loss of each row (N,).

    Examples:
        >>> is_ignored = torch.tensor([[False, True, False]])
        >>> softmax_equalization_loss(
        ...     torch.zeros(1, 3), torch.tensor([0]), is_ignored
        ... )
        tensor([0.6931])
    """
    # The lowest finite number: exp(z - max z) is 0, and there is no -inf.
    lowest = torch.finfo(logits.dtype).min
    z = logits.masked_fill(is_ignored, lowest)
    return F.cross_entropy(z, labels, reduction='none')


@MODELS.register_module()
class SoftmaxEqualizationLoss(TailLoss):
    """Softmax Equalization Loss for RoI heads; C + 1 channels.

    The paper has SEQL for image classification, without background. Here
    background is the last column and follows the paper's sigmoid loss:
    background is no tail class, so no row ignores it. A background RoI
    ignores no class (E(r) = 0), as tail classes would have no negatives
    otherwise.

    Args:
        frequency_threshold (float, optional): lambda, as in
            :class:`EqualizationLoss`; 0 is plain softmax cross-entropy.
        tail_ratio (float): As in :class:`EqualizationLoss`.
        ignore_probability (float): gamma, 0..1, the probability that a tail
            class leaves a row's softmax; 0 is plain softmax cross-entropy.
            Defaults to 0.95; the paper's Tables 7 and 9 are best at 0.9 to
            0.95.

    Examples:
        >>> statistics = ClassStatistics(
        ...     ('dog', 'ibex'), [90, 2], [120, 3], 100, 91
        ... )
        >>> loss = SoftmaxEqualizationLoss(
        ...     2, tail_ratio=0.1, ignore_probability=1.0
        ... )
        >>> loss.set_class_statistics(statistics)
        >>> loss(torch.zeros(1, 3), torch.tensor([0]))
        tensor(0.6931)
    """

    explanation = (
        'one choice among all classes, from which the classes that are in few '
        'training images are mostly left out when the box is of another class.'
    )
    plain = 'softmax cross-entropy'

    def __init__(
        self, *args: Any, ignore_probability: float = 0.95, **settings: Any
    ) -> None:
        super().__init__(*args, **settings)
        name = type(self).__name__
        check_numbers(name, '[0, 1]', ignore_probability=ignore_probability)
        self.ignore_probability = ignore_probability

    def row_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute :func:`softmax_equalization_loss` of a random draw."""
        T = F.pad(self.tail_weight, (0, logits.size(1) - self.num_classes))
        is_ignored = sample_ignored(labels, T, self.ignore_probability)
        E = (labels < self.num_classes).unsqueeze(1)  # (N, 1)
        return softmax_equalization_loss(logits, labels, is_ignored & E)


@MODELS.register_module()
class SoftmaxEqualizationClassificationLoss(SoftmaxEqualizationLoss):
    """Softmax Equalization Loss as the paper has it; C channels.

    It is for heads of image classifiers, which have no background and apply
    their own softmax. The arguments are those of the base class.

    Examples:
        >>> statistics = ClassStatistics(
        ...     ('dog', 'ibex'), [90, 2], [120, 3], 100, 91
        ... )
        >>> loss = SoftmaxEqualizationClassificationLoss(2, tail_ratio=0.1)
        >>> loss.set_class_statistics(statistics)
        >>> loss(torch.zeros(1, 2), torch.tensor([1]))
        tensor(0.6931)
    """

    column_blocks = ('classes',)
    custom_cls_channels = False
    custom_activation = False
    custom_accuracy = False

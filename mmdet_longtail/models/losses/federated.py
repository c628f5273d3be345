"""Federated loss: sigmoid cross-entropy of a few classes per batch.

Zhou et al., Probabilistic Two-Stage Detection, 2021,
https://arxiv.org/abs/2103.07461, and Detectron2's code.

Shapes: N RoIs, C classes. Labels: 0..C-1 foreground, C background.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor

from mmdet_longtail.errors import check
from mmdet_longtail.models.losses.base import (
    DenseHeadLoss,
    ImageLevelLabels,
    LongTailLoss,
)
from mmdet_longtail.models.losses.sigmoid import WeightedSigmoidCrossEntropy
from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.utils.checks import check_numbers


def sample_classes(
    labels: Tensor, sampling_weight: Tensor, num_sampled_classes: int
) -> Tensor:
    """Draw the classes S that a batch is trained on.

    S is every label of the batch and, if they are fewer than K =
    ``num_sampled_classes``, as many more classes as K lacks. These are drawn
    without replacement, with a probability proportional to their weight.
    Background counts as one of the K where the batch has it, as in
    Detectron2. Fewer are drawn where fewer classes have a weight above 0.

    For one random state the classes are those of ``torch.multinomial``, which
    takes the largest p / q with q from Exp(1). Taken here, they need no host
    sync. A batch of K labels or more draws as well, and ignores the result.

    Args:
        labels (Tensor): Labels (N,).
        sampling_weight (Tensor): Weight of each class (C,), at least 0.
        num_sampled_classes (int): K.

    Returns:
        Tensor: Bool (C,).

    Examples:
        >>> sampling_weight = torch.tensor([1.0, 0.0, 1.0])
        >>> sample_classes(torch.tensor([0]), sampling_weight, 2)
        tensor([ True, False,  True])
    """
    C = len(sampling_weight)
    is_label = torch.zeros(C + 1, dtype=torch.bool, device=labels.device)
    is_label.scatter_(0, labels, True)  # (C + 1,)
    p = F.pad(sampling_weight, (0, 1)).masked_fill(is_label, 0)  # (C + 1,)
    q = torch.empty_like(p).exponential_()
    key, order = (p / q).topk(min(num_sampled_classes, C + 1))
    rank = torch.arange(len(order), device=labels.device)
    num_drawn = num_sampled_classes - is_label.sum()
    is_drawn = (rank < num_drawn) & (key > 0)
    is_sampled = torch.zeros_like(is_label).scatter(0, order, is_drawn)
    return (is_label | is_sampled)[:C]


def federated_loss(
    logits: Tensor,
    labels: Tensor,
    is_counted: Tensor,
    prior_logit: float = 0.0,
) -> Tensor:
    r"""Compute sigmoid cross-entropy of the counted classes.

    .. math::
        L = -\sum_{j \in S} \log \hat p_j

    with p^_j = p_j where y_j = 1 and 1 - p_j elsewhere.

    Args:
        logits (Tensor): Raw scores z (N, C).
        labels (Tensor): Labels (N,).
        is_counted (Tensor): Bool, whether a class is in S, of the batch (C,)
            or of each row (N, C).
        prior_logit (float): Constant added to the logits. Defaults to 0.0.

    Returns:
        Tensor: Loss of each row (N,), summed over the classes.

    Examples:
        >>> is_counted = torch.tensor([True, False, True])
        >>> federated_loss(torch.zeros(1, 3), torch.tensor([0]), is_counted)
        tensor([1.3863])
    """
    return WeightedSigmoidCrossEntropy.apply(
        logits, labels, is_counted.to(logits), prior_logit
    )


@MODELS.register_module()
class FederatedLoss(LongTailLoss):
    """Federated loss for RoI heads; C sigmoid channels, no background.

    Each batch trains the classes of its boxes and some others, drawn by
    their number of training images. The random numbers are those of the
    process: on several GPUs each draws its own classes. For one random state
    and batch the classes are Detectron2's, and with prior_prob=None the loss,
    too.

    Args:
        num_classes (int): Number of foreground classes, C.
        num_sampled_classes (int): K, the number of classes per batch, at
            least 1; background is one of them. A batch with more labels
            trains all of its own. K above C trains every class that the
            training set has. Defaults to 50.
        power (float): A class is drawn with a probability proportional to
            image_count ** power, at least 0. Defaults to 0.5.
        prior_prob (float, optional): Probability of a zero logit, between 0
            and 1; None adds no constant. The bias of CenterNet2's code is
            that of 0.01, Detectron2's is 0. Defaults to 0.01.
        loss_weight (float): Factor of the loss. Defaults to 1.0.

    Examples:
        >>> statistics = ClassStatistics(
        ...     ('dog', 'ibex'), [90, 2], [120, 3], 100, 91
        ... )
        >>> loss = FederatedLoss(num_classes=2)
        >>> loss.set_class_statistics(statistics)
        >>> loss(torch.zeros(1, 2), torch.tensor([0]))
        tensor(4.6152)
    """

    column_blocks = ('sigmoids',)
    explanation = (
        'one yes-or-no question per class, asked in each step about the '
        'classes of the boxes at hand and a few others only. Classes with few '
        'training images are rarely among the others, so other boxes push '
        'them down rarely.'
    )
    loss_for_dense_heads = 'DenseFederatedLoss'

    sampling_weight: Tensor

    def __init__(
        self,
        num_classes: int,
        num_sampled_classes: int = 50,
        power: float = 0.5,
        prior_prob: float | None = 0.01,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(num_classes, loss_weight)
        name = type(self).__name__
        check(
            isinstance(num_sampled_classes, int) and num_sampled_classes >= 1,
            f'{name}: num_sampled_classes is {num_sampled_classes!r}, '
            'expected the number of classes per batch, an integer of at '
            'least 1',
        )
        check_numbers(name, '[0, inf)', power=power)
        self.num_sampled_classes = num_sampled_classes
        self.power = power
        self.set_prior_prob(prior_prob)
        self.add_derived('sampling_weight', (num_classes,))

    def derive(self, statistics: ClassStatistics) -> dict[str, np.ndarray]:
        """Compute image_count ** power, in single precision as Detectron2."""
        count = torch.tensor(
            statistics.image_count, dtype=torch.float32, device='cpu'
        )
        return {'sampling_weight': (count**self.power).numpy()}

    def row_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute :func:`federated_loss` of a random draw of classes."""
        is_counted = sample_classes(
            labels, self.sampling_weight, self.num_sampled_classes
        )
        return federated_loss(logits, labels, is_counted, self.prior_logit)


@MODELS.register_module()
class DenseFederatedLoss(DenseHeadLoss, FederatedLoss):
    """Federated loss for dense and DETR heads.

    These heads bring their own bias prior, and divide the loss by the number
    of positives. A head that computes its loss per level of the feature
    pyramid, or per layer of the decoder, draws classes for each of them.

    Args:
        num_classes (int): Number of foreground classes, C.
        use_sigmoid (bool): Must be True; the heads look for the key.
        **settings: The other arguments of FederatedLoss, but prior_prob.

    Examples:
        >>> statistics = ClassStatistics(
        ...     ('dog', 'ibex'), [90, 2], [120, 3], 100, 91
        ... )
        >>> loss = DenseFederatedLoss(num_classes=2, use_sigmoid=True)
        >>> loss.set_class_statistics(statistics)
        >>> loss(torch.zeros(1, 2), torch.tensor([0]))
        tensor(1.3863)
    """

    loss_for_roi_heads = 'FederatedLoss'

    def __init__(
        self, num_classes: int, *, use_sigmoid: bool, **settings: Any
    ) -> None:
        super().__init__(num_classes, prior_prob=None, **settings)
        self.set_use_sigmoid(use_sigmoid)


@MODELS.register_module()
class VerifiedFederatedLoss(LongTailLoss, ImageLevelLabels):
    """Federated loss of the classes that an image was checked for.

    In a federated dataset such as LVIS, the classes of an image that are
    neither in its positive nor in its negative set are unknown. This loss
    leaves them out, where FederatedLoss draws classes at random: S is the
    union of both sets, for each row those of its image.

    It needs the RoI heads and datasets of docs/image_level_labels.md. Without
    image-level labels every class counts as verified.

    Args:
        num_classes (int): Number of foreground classes, C.
        prior_prob (float, optional): As in :class:`FederatedLoss`.
        loss_weight (float): Factor of the loss. Defaults to 1.0.

    Examples:
        >>> loss = VerifiedFederatedLoss(num_classes=2, prior_prob=None)
        >>> with loss.verifying(torch.tensor([[True, False]])):
        ...     loss(torch.zeros(1, 2), torch.tensor([0]))
        tensor(0.6931)
    """

    column_blocks = ('sigmoids',)
    needs_class_statistics = False
    explanation = (
        'one yes-or-no question per class, asked only about the classes that '
        "the image's annotators looked for."
    )
    uses_verified_classes = True
    needs_verified_classes = True
    loss_for_dense_heads = 'DenseFederatedLoss'

    def __init__(
        self,
        num_classes: int,
        prior_prob: float | None = 0.01,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(num_classes, loss_weight)
        self.set_prior_prob(prior_prob)

    def row_losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute :func:`federated_loss` of the verified classes."""
        is_counted = self.verified_classes
        if is_counted is None:
            is_counted = torch.ones_like(logits, dtype=torch.bool)
        return federated_loss(logits, labels, is_counted, self.prior_logit)

"""What reaches each class of a RoI head's classifier while it trains.

Tan et al., Equalization Loss for Long-Tailed Object Recognition, CVPR 2020,
https://arxiv.org/abs/2003.05176, Figures 1 (gradients) and 2 (probabilities).

Shapes: N RoIs, C classes (foreground only), D >= C channels of ``fc_cls``.
Labels: 0..C-1 foreground, C background. Column c of the scores is the logit
of class c.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

from mmdet_longtail.errors import LongTailError

GRADIENTS = (
    'gradient_positive',
    'gradient_foreground_negative',
    'gradient_background_negative',
)
MEASURES = ('positive_rois', *GRADIENTS, 'probability', 'weight_norm')


def classifier_heads(model: nn.Module) -> list[Any]:
    """Find the bbox heads that classify, one for each stage of a cascade.

    Args:
        model (nn.Module): A detector, not wrapped.

    Raises:
        LongTailError: If there is none.
    """
    heads = [
        module
        for module in getattr(model, 'roi_head', nn.Module()).modules()
        if isinstance(getattr(module, 'loss_cls', None), nn.Module)
        and hasattr(module, 'fc_cls')
    ]
    if not heads:
        raise LongTailError(
            f'model.roi_head: {type(model).__name__} has no RoI head with a '
            'classifier (fc_cls and loss_cls) that could be looked at; use a '
            'two-stage detector such as FasterRCNN'
        )
    return heads


def predicted_probs(head: Any, cls_score: Tensor) -> Tensor:
    """Probabilities as mmdet predicts them; column c is class c.

    Args:
        head (nn.Module): A bbox head.
        cls_score (Tensor): Raw scores (N, D).
    """
    if getattr(head.loss_cls, 'custom_activation', False):
        return head.loss_cls.get_activation(cls_score)
    if cls_score.size(1) == head.num_classes:
        return cls_score.sigmoid()
    return cls_score.softmax(1)


class ClassifierRecorder:
    """Adds up what the classification loss does to each class.

    Once started, it listens to the losses of all RoI heads; a cascade has
    several, and the RoIs of all stages count::

        recorder = ClassifierRecorder(model)
        recorder.start()
        model(inputs, data_samples, mode='loss')
        recorder.stop()
        recorder.measures()

    The gradient is autograd's at ``cls_score``, so it is that of any loss as
    the head reduces it, with the loss's own weight and without those of a
    cascade's stages. With L_b the loss of a batch b that has N_b RoIs,

        gradient_kind[c] = sum_b N_b sum_{i of kind} |dL_b/dz_ic| / sum_b N_b

    is the sum of |dL/dz_c| over the rows of a kind in an average batch: for
    a loss that is a mean over RoIs, the mean over all RoIs of the gradient
    that one RoI makes, where RoIs of another kind count as 0. So the kinds
    can be compared. They are: ``positive``, rows of class c;
    ``foreground_negative``, rows of other classes; ``background_negative``.
    Rows whose label weight is 0 are left out.

    Args:
        model (nn.Module): A detector, not wrapped.

    Raises:
        LongTailError: If it has no RoI head with a classifier.
    """

    def __init__(self, model: nn.Module) -> None:
        self.heads = classifier_heads(model)
        self.num_classes: int = self.heads[0].num_classes
        # Positive RoIs, three gradients, probabilities; then RoIs, C times.
        self.sums = torch.zeros(6, self.num_classes, dtype=torch.float64)
        self.handles: list[Any] = []

    def start(self) -> None:
        """Listen from now on."""
        for head in self.heads:
            self.handles += [
                head.loss_cls.register_forward_pre_hook(_need_gradient),
                head.loss_cls.register_forward_hook(partial(self._add, head)),
            ]

    def stop(self) -> None:
        """Leave the losses as they were."""
        while self.handles:
            self.handles.pop().remove()

    def _add(
        self,
        head: nn.Module,
        loss_cls: nn.Module,
        args: tuple[Tensor, Tensor, Tensor],
        output: Tensor | dict[str, Tensor],
    ) -> None:
        cls_score, labels, label_weights = args
        if len(cls_score) == 0:
            return
        C = self.num_classes
        if isinstance(output, dict):
            terms = [v for name, v in output.items() if 'loss' in name]
        else:
            terms = [output]
        is_used = label_weights > 0  # (N,)
        num_rois = is_used.sum()
        # N_b inside: in half precision a gradient / N_b could vanish.
        loss = num_rois * torch.stack([term.sum() for term in terms]).sum()
        # The training still needs the graph.
        [gradient] = torch.autograd.grad(loss, cls_score, retain_graph=True)

        gradient = gradient[:, :C].abs().float()  # (N, C)
        is_foreground = is_used & (labels < C)
        of_foreground = gradient[is_foreground]  # (M, C)
        of_background = gradient[is_used & (labels == C)]
        y = labels[is_foreground]  # (M,)
        with torch.no_grad():
            probs = predicted_probs(head, cls_score[is_foreground])
        positive = torch.stack(
            [
                torch.ones_like(y, dtype=torch.float),
                of_foreground.gather(1, y[:, None])[:, 0],
                probs.gather(1, y[:, None])[:, 0].float(),
            ]
        )  # (3, M)
        by_class = positive.new_zeros(3, C).index_add_(1, y, positive)
        self.sums += torch.stack(
            [
                by_class[0],
                by_class[1],
                of_foreground.scatter(1, y[:, None], 0).sum(0),
                of_background.sum(0),
                by_class[2],
                num_rois.to(by_class).expand(C),
            ]
        ).to(self.sums)

    def sum_over_ranks(self) -> None:
        """Add what other ranks recorded; all ranks have to call it."""
        all_reduce(self.sums)

    def weight_norm(self) -> np.ndarray:
        """Length of each class's row of ``fc_cls`` (C,), mean of stages."""
        norms = [
            head.fc_cls.weight.detach()[: self.num_classes].float().norm(dim=1)
            for head in self.heads
        ]
        return torch.stack(norms).mean(0).double().cpu().numpy()

    def measures(self) -> dict[str, np.ndarray]:
        """Give each measure of `MEASURES` (C,) float64.

        ``probability`` is the mean over the positive RoIs of the probability
        of their class, nan for a class without any.
        """
        positive_rois, *gradients, probability, num_rois = self.sums.numpy()
        with np.errstate(invalid='ignore'):
            columns = [
                positive_rois,
                *(total / np.maximum(num_rois, 1) for total in gradients),
                probability / positive_rois,
                self.weight_norm(),
            ]
        return dict(zip(MEASURES, columns, strict=True))


def negative_to_positive(measures: dict[str, np.ndarray]) -> np.ndarray:
    """Gradient from all negatives over that from positives.

    Above 1 the negatives win: the class's scores are pushed down.

    Args:
        measures (dict): The gradients, each of the same shape.

    Returns:
        np.ndarray: Of that shape, nan where there is no positive gradient.
    """
    positive, *negatives = (measures[name] for name in GRADIENTS)
    return np.divide(
        sum(negatives),
        positive,
        out=np.full_like(positive, np.nan),
        where=positive > 0,
    )


def _need_gradient(
    loss_cls: nn.Module, args: tuple[Tensor, Tensor, Tensor]
) -> None:
    """Give scores of a frozen classifier a gradient to look at."""
    if not args[0].requires_grad:
        args[0].requires_grad_()

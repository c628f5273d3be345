"""Record gradients and probabilities per class of a RoI head's classifier.

Tan et al., Equalization Loss for Long-Tailed Object Recognition, CVPR 2020,
https://arxiv.org/abs/2003.05176, Figures 1 (gradients) and 2 (probabilities).

Shapes: N RoIs, C classes (foreground only), D >= C channels of ``fc_cls``.
Labels: 0..C-1 foreground, C background. Column c of the scores is the logit
of class c.
"""

from functools import partial
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_reduce
from torch import Tensor, nn

from mmdet_longtail.models.utils.bbox_heads import (
    classifier_heads,
    predicted_probs,
)

GRADIENTS = (
    'gradient_positive',
    'gradient_foreground_negative',
    'gradient_background_negative',
)
MEASURES = ('positive_rois', *GRADIENTS, 'probability', 'weight_norm')


class ClassifierRecorder:
    """Accumulate the effect of the classification loss on each class.

    Between :meth:`start` and :meth:`stop`, each call of the losses of all RoI
    heads is recorded. The RoIs of all stages of a cascade count::

        recorder = ClassifierRecorder(model)
        recorder.start()
        model(inputs, data_samples, mode='loss')
        recorder.stop()
        recorder.measures()

    The gradient is autograd's at ``cls_score``, of any loss as the head
    reduces it, with its loss_weight and without the stage weights of a
    cascade. With L_b the loss of a batch b of N_b RoIs,

        gradient_kind[c] = sum_b N_b sum_{i of kind} |dL_b/dz_ic| / sum_b N_b

    is the sum of |dL/dz_c| over the rows of a kind in an average batch. The
    kinds are ``positive``, rows of class c, ``foreground_negative``, rows of
    other classes, and ``background_negative``. For a loss that is a mean over
    RoIs, the sum is a mean over all RoIs in which RoIs of another kind count
    as 0. Rows whose label weight is 0 do not count.

    Args:
        model (nn.Module): A detector, not wrapped.

    Raises:
        LongTailError: If the detector has no RoI head with a classifier.
    """

    def __init__(self, model: nn.Module) -> None:
        self.heads = list(classifier_heads(model).values())
        self.num_classes: int = self.heads[0].num_classes
        # Positive RoIs, three gradients, probabilities; then RoIs, C times.
        self.sums = torch.zeros(6, self.num_classes, dtype=torch.float64)
        self.handles: list[Any] = []

    def start(self) -> None:
        """Register the hooks of the losses."""
        for head in self.heads:
            self.handles += [
                head.loss_cls.register_forward_pre_hook(_require_gradient),
                head.loss_cls.register_forward_hook(partial(self._add, head)),
            ]

    def stop(self) -> None:
        """Remove the hooks of the losses."""
        while self.handles:
            self.handles.pop().remove()

    def _add(
        self,
        head: nn.Module,
        loss_cls: nn.Module,
        args: tuple[Tensor, Tensor, Tensor],
        output: Tensor | dict[str, Tensor],
    ) -> None:
        """Add one call of a loss to the sums."""
        cls_score, labels, label_weights = args
        if len(cls_score) == 0:
            return
        C = self.num_classes
        if not isinstance(output, dict):
            output = {'loss': output}
        terms = [value for name, value in output.items() if 'loss' in name]
        is_used = label_weights > 0  # (N,)
        num_rois = is_used.sum()
        # N_b inside: in half precision a gradient / N_b could vanish.
        loss = num_rois * torch.stack([term.sum() for term in terms]).sum()
        # The training still needs the graph.
        [gradient] = torch.autograd.grad(loss, cls_score, retain_graph=True)

        gradient = gradient[:, :C].abs().float()  # (N, C)
        is_foreground = is_used & (labels < C)
        of_foreground = gradient[is_foreground]  # (M, C)
        y = labels[is_foreground].unsqueeze(1)  # (M, 1)
        with torch.no_grad():
            probs = predicted_probs(head, cls_score[is_foreground])
        y_gradient = of_foreground.gather(1, y)
        y_probs = probs.gather(1, y).float()
        columns = [torch.ones_like(y_probs), y_gradient, y_probs]
        by_class = gradient.new_zeros(C, 3)
        by_class.index_add_(0, y[:, 0], torch.cat(columns, 1))
        num_positive, positive, probability = by_class.T
        foreground = of_foreground.scatter(1, y, 0).sum(0)
        background = gradient[is_used & (labels == C)].sum(0)
        total = num_rois.to(gradient).expand(C)
        sums = [num_positive, positive, foreground, background, probability]
        self.sums += torch.stack([*sums, total]).to(self.sums)

    def sum_over_ranks(self) -> None:
        """Add the records of other ranks; a collective."""
        all_reduce(self.sums)

    def weight_norm(self) -> np.ndarray:
        """Compute the norm of each class's row (C,), the mean of stages."""
        norms = [
            head.fc_cls.weight.detach()[: self.num_classes].float().norm(dim=1)
            for head in self.heads
        ]
        return torch.stack(norms).mean(0).double().cpu().numpy()

    def measures(self) -> dict[str, np.ndarray]:
        """Return the measures of `MEASURES`, (C,) float64 each.

        ``probability`` is the mean over a class's positive RoIs of its
        probability, NaN without such RoIs.
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
    """Compute the ratio of negative to positive gradients.

    Above 1 the scores of the class decrease. NaN where there is no positive
    gradient.

    Args:
        measures (dict): Arrays of one shape by the names in `GRADIENTS`.
    """
    positive, *negatives = (measures[name] for name in GRADIENTS)
    with np.errstate(divide='ignore', invalid='ignore'):
        return np.where(positive > 0, sum(negatives) / positive, np.nan)


def _require_gradient(
    loss_cls: nn.Module, args: tuple[Tensor, Tensor, Tensor]
) -> None:
    """Require a gradient of the scores of a frozen classifier."""
    if not args[0].requires_grad:
        args[0].requires_grad_()

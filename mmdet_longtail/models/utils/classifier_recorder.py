"""Record gradients and probabilities per class of a RoI head's classifier.

Tan et al., Equalization Loss for Long-Tailed Object Recognition, CVPR 2020,
https://arxiv.org/abs/2003.05176, Figures 1 (gradients) and 2 (probabilities).

Shapes: N RoIs, C classes (foreground only), D >= C channels of ``fc_cls``.
Labels: 0..C-1 foreground, C background. Column c of the scores is the logit
of class c.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
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
        self.model: Any = model
        self.heads = list(classifier_heads(model).values())
        self.num_classes: int = self.heads[0].num_classes
        # Positive RoIs, three gradients, probabilities; then RoIs, C times.
        # On the device of the scores, which are not moved in an iteration.
        self.sums = self.heads[0].fc_cls.weight.new_zeros(
            6, self.num_classes, dtype=torch.float64
        )
        self.handles: list[Any] = []

    def start(self) -> None:
        """Start to record."""
        for head in self.heads:
            self.handles += [
                head.loss_cls.register_forward_pre_hook(_require_gradient),
                head.loss_cls.register_forward_hook(partial(self._add, head)),
            ]

    def stop(self) -> None:
        """Stop to record."""
        while self.handles:
            self.handles.pop().remove()

    def add(self, data: dict[str, Any]) -> None:
        """Record the training loss of a batch of a data loader."""
        data = self.model.data_preprocessor(data, training=True)
        self.start()
        self.model(**data, mode='loss')
        self.stop()

    def _add(
        self,
        head: nn.Module,
        loss_cls: nn.Module,
        args: tuple[Tensor, Tensor, Tensor],
        output: Tensor | dict[str, Tensor],
    ) -> None:
        """Add one call of a loss to the sums."""
        cls_score, labels, label_weights = args
        # OHEMSampler calls the loss without a gradient, to choose the RoIs.
        if len(cls_score) == 0 or not torch.is_grad_enabled():
            return
        C = self.num_classes
        if not isinstance(output, dict):
            output = {'loss': output}
        terms = [
            value.sum() for name, value in output.items() if 'loss' in name
        ]
        is_used = label_weights > 0  # (N,)
        num_rois = is_used.sum()
        # N_b inside: in half precision a gradient / N_b could vanish.
        loss = num_rois * torch.stack(terms).sum()
        # The training still needs the graph.
        [gradient] = torch.autograd.grad(loss, cls_score, retain_graph=True)

        with torch.no_grad():
            probs = predicted_probs(head, cls_score[is_used])[:, :C].float()
        gradient = gradient[is_used, :C].abs().float()  # (N, C)
        labels = labels[is_used]
        is_own = F.one_hot(labels, C + 1)[:, :C].bool()  # (N, C)
        kinds = [
            is_own,
            gradient * is_own,
            (gradient * ~is_own)[labels < C],
            gradient[labels == C],
            probs * is_own,
            num_rois.expand(1, C),
        ]
        self.sums += torch.stack([k.sum(0).double() for k in kinds])

    def sum_over_ranks(self) -> None:
        """Add the records of other ranks; a collective."""
        all_reduce(self.sums)

    def measures(self) -> dict[str, np.ndarray]:
        """Return the measures of `MEASURES`, (C,) float64 each.

        ``probability`` is the mean over a class's positive RoIs of its
        probability, NaN without such RoIs. ``weight_norm`` is the norm of
        the class's row of ``fc_cls``, the mean of the stages.
        """
        sums = self.sums.cpu().numpy()
        positive_rois, *gradients, probability, num_rois = sums
        weights = [head.fc_cls.weight.detach() for head in self.heads]
        norms = [w[: self.num_classes].double().norm(dim=1) for w in weights]
        with np.errstate(invalid='ignore'):
            columns = [
                positive_rois.copy(),
                *(total / np.maximum(num_rois, 1) for total in gradients),
                probability / positive_rois,
                torch.stack(norms).mean(0).cpu().numpy(),
            ]
        return dict(zip(MEASURES, columns, strict=True))


def negative_to_positive(measures: Mapping[str, Any]) -> np.ndarray:
    """Compute the ratio of negative to positive `GRADIENTS`.

    Above 1 the scores of the class decrease. NaN where there is no positive
    gradient.
    """
    positive, *negatives = (measures[name] for name in GRADIENTS)
    with np.errstate(divide='ignore', invalid='ignore'):
        return np.where(
            positive > 0, np.divide(sum(negatives), positive), np.nan
        )


def _require_gradient(
    loss_cls: nn.Module, args: tuple[Tensor, Tensor, Tensor]
) -> None:
    """Require a gradient of the scores of a frozen classifier."""
    if not args[0].requires_grad:
        args[0].requires_grad_()

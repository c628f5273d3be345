"""Bbox heads that classify by the mean feature of each class.

Shapes: N RoIs, C classes (foreground only), F features.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor, nn

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.roi_heads.bbox_heads.long_tail_bbox_head import (
    LongTailConvFCBBoxHead,
    LongTailShared2FCBBoxHead,
    LongTailShared4Conv1FCBBoxHead,
)

FEATURES = ('fc', 'conv')


def nearest_class_mean_scores(
    feature: Tensor, class_means: Tensor, logits: Tensor, temperature: float
) -> Tensor:
    """Log-probabilities of the class whose mean is nearest, and background.

    p_c = (1 - p_bg) softmax_c(temperature * cos(x, mu_c)), where p_bg is the
    background probability of the detector's own softmax. A class whose mean
    is zero, for lack of RoIs, has p_c = 0.

    Args:
        feature (Tensor): Features of the RoIs x (N, F).
        class_means (Tensor): Mean features of the classes mu (C, F).
        logits (Tensor): Raw scores of the detector (N, C + 1).
        temperature (float): Above 0; the larger, the surer.

    Returns:
        Tensor: log p (N, C + 1), background last. Its softmax is p.

    Source: Kang et al., Decoupling Representation and Classifier for
    Long-Tailed Recognition, ICLR 2020, https://arxiv.org/abs/1910.09217,
    Section 4.1; Li et al., Balanced Group Softmax, CVPR 2020, rows "NCM" of
    Table 1, for the background.
    """
    cosine = F.normalize(feature) @ F.normalize(class_means).T  # (N, C)
    lowest = torch.finfo(cosine.dtype).min
    has_mean = class_means.any(1)  # (C,)
    z = (temperature * cosine).masked_fill(~has_mean, lowest)
    # log p_bg and log(1 - p_bg), exact where p_bg is close to 0 or 1.
    log_total = logits.logsumexp(1, keepdim=True)
    log_object = logits[:, :-1].logsumexp(1, keepdim=True) - log_total
    log_background = logits[:, -1:] - log_total
    return torch.cat([z.log_softmax(1) + log_object, log_background], 1)


class NearestClassMeanMixin:
    """A head of a trained softmax detector that looks at class means.

    The buffer ``class_means`` comes with the checkpoint that
    ``longtail nearest-class-mean`` writes. The scores (N, C + 1) that the head
    gives are log-probabilities, so its loss_cls is mmdet's plain
    ``CrossEntropyLoss``, whose softmax makes the probabilities of them. A
    cascade, which averages the scores of its stages, takes the geometric
    mean.

    Args:
        feature (str): 'fc', the last shared fc's output before its ReLU, or
            'conv', the flattened RoI feature that enters the head.
        temperature (float): Factor of the cosines, above 0. Defaults to 20.

    Raises:
        LongTailError: If an argument is something else, the head has no
            shared fc to take 'fc' from, or its classifier is not that of a
            plain softmax.
    """

    num_classes: int
    in_channels: int
    roi_feat_area: int
    shared_fcs: nn.ModuleList
    fc_cls: nn.Linear
    class_means: Tensor
    roi_feature: Tensor
    """Return the features of the last RoIs (N, F)."""

    def __init__(
        self,
        *args: Any,
        feature: str = 'fc',
        temperature: float = 20.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        name = type(self).__name__
        if feature not in FEATURES:
            raise LongTailError(
                f"{name}: feature is {feature!r}, expected 'fc' or 'conv'"
            )
        if not temperature > 0:
            raise LongTailError(
                f'{name}: temperature is {temperature}, expected a number '
                'above 0'
            )
        if feature == 'fc' and len(self.shared_fcs) == 0:
            raise LongTailError(
                f"{name}: feature='fc' needs a shared fc, but num_shared_fcs "
                "is 0; use feature='conv'"
            )
        if len(self.fc_cls.weight) != self.num_classes + 1:
            raise LongTailError(
                f'{name}: its loss_cls makes {len(self.fc_cls.weight)} '
                f'columns of {self.num_classes} classes, expected one more '
                "than classes; use loss_cls=dict(type='CrossEntropyLoss')"
            )
        self.feature = feature
        self.temperature = temperature
        num_features = self.in_channels * self.roi_feat_area
        if feature == 'fc':
            last: Any = self.shared_fcs[-1]
            num_features = last.out_features
            last.register_forward_hook(self._keep)
        self.register_buffer(  # type: ignore[attr-defined]
            'class_means', torch.zeros(self.num_classes, num_features)
        )

    def _keep(self, layer: nn.Module, args: Any, output: Tensor) -> None:
        # The ReLU works in place, and a model with a graph cannot be copied.
        self.roi_feature = output.detach().clone()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Scores (N, C + 1) and boxes of RoI features."""
        cls_score, bbox_pred = super().forward(x)  # type: ignore[misc]
        if self.feature == 'conv':
            self.roi_feature = x.detach().flatten(1)
        scores = nearest_class_mean_scores(
            self.roi_feature.float(),
            self.class_means,
            cls_score.float(),
            self.temperature,
        )
        return scores, bbox_pred


@MODELS.register_module()
class NearestClassMeanConvFCBBoxHead(
    NearestClassMeanMixin, LongTailConvFCBBoxHead
):
    """mmdet's ``ConvFCBBoxHead`` that looks at class means."""


@MODELS.register_module()
class NearestClassMeanShared2FCBBoxHead(
    NearestClassMeanMixin, LongTailShared2FCBBoxHead
):
    """mmdet's ``Shared2FCBBoxHead`` that looks at class means."""


@MODELS.register_module()
class NearestClassMeanShared4Conv1FCBBoxHead(
    NearestClassMeanMixin, LongTailShared4Conv1FCBBoxHead
):
    """mmdet's ``Shared4Conv1FCBBoxHead`` that looks at class means."""

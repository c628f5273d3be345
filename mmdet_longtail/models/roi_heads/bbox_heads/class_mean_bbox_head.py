"""Bbox heads that classify by the mean feature of each class.

Shapes: N RoIs, C classes (foreground only), F features.
"""

from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.roi_heads.bbox_heads import (
    Shared2FCBBoxHead,
    Shared4Conv1FCBBoxHead,
)
from mmdet.registry import MODELS
from torch import Tensor, nn

from mmdet_longtail.errors import check
from mmdet_longtail.models.roi_heads.bbox_heads.long_tail_bbox_head import (
    LongTailConvFCBBoxHead,
)
from mmdet_longtail.utils.checks import check_choice, check_numbers

FEATURES = ('fc', 'conv')


def nearest_class_mean_scores(
    feature: Tensor, class_means: Tensor, logits: Tensor, temperature: float
) -> Tensor:
    """Compute log-probabilities by the cosine to each class mean (NCM).

    p_c = (1 - p_bg) softmax_c(temperature * cos(x, mu_c)), with the features
    x (N, F) of RoIs and the mean features mu (C, F) of classes, where p_bg is
    the background probability of the detector's own softmax of its logits
    (N, C + 1). A class without a box, whose mean is zero, has p_c = 0. The
    result is log p (N, C + 1), background last; its softmax is p.

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


@MODELS.register_module()
class NearestClassMeanConvFCBBoxHead(LongTailConvFCBBoxHead):
    """Classify the RoIs of a trained softmax detector by class means.

    ``longtail nearest-class-mean`` writes the buffer ``class_means`` into its
    checkpoint. The scores (N, C + 1) of the head are log-probabilities, so
    loss_cls is mmdet's plain ``CrossEntropyLoss``, whose softmax gives the
    probabilities. A cascade averages the scores of its stages, which is the
    geometric mean of the probabilities.

    Args:
        feature (str): 'fc', the last shared fc's output before its ReLU, or
            'conv', the flattened RoI feature that enters the head.
        temperature (float): Factor of the cosines, above 0. Defaults to 20.

    Raises:
        LongTailError: If an argument is invalid, 'fc' meets a head without a
            shared fc, or the classifier is not that of a plain softmax.
    """

    class_means: Tensor
    roi_feature: Tensor
    """Features of the last RoIs (N, F)."""

    def __init__(
        self,
        *args: Any,
        feature: str = 'fc',
        temperature: float = 20.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        name, num_columns = type(self).__name__, len(self.fc_cls.weight)
        check_choice(name, 'feature', feature, *FEATURES)
        check_numbers(name, '(0, inf)', temperature=temperature)
        check(
            feature == 'conv' or len(self.shared_fcs),
            f"{name}: feature='fc' needs a shared fc, but num_shared_fcs is "
            "0; use feature='conv'",
        )
        check(
            num_columns == self.num_classes + 1,
            f'{name}: its loss_cls makes {num_columns} columns of '
            f'{self.num_classes} classes, expected one more than classes; use '
            "loss_cls=dict(type='CrossEntropyLoss')",
        )
        self.feature = feature
        self.temperature = temperature
        num_features = self.in_channels * self.roi_feat_area
        if feature == 'fc':
            num_features = self.shared_fcs[-1].out_features
            self.shared_fcs[-1].register_forward_hook(self._keep)
        self.register_buffer(
            'class_means', torch.zeros(self.num_classes, num_features)
        )

    def _keep(self, layer: nn.Module, args: Any, output: Tensor) -> None:
        # The ReLU works in place, and a model with a graph cannot be copied.
        self.roi_feature = output.detach().clone()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Compute scores (N, C + 1) and boxes of RoI features."""
        cls_score, bbox_pred = super().forward(x)
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
class NearestClassMeanShared2FCBBoxHead(
    NearestClassMeanConvFCBBoxHead, Shared2FCBBoxHead
):
    """mmdet's ``Shared2FCBBoxHead`` with class means."""


@MODELS.register_module()
class NearestClassMeanShared4Conv1FCBBoxHead(
    NearestClassMeanConvFCBBoxHead, Shared4Conv1FCBBoxHead
):
    """mmdet's ``Shared4Conv1FCBBoxHead`` with class means."""

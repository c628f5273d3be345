"""Linear classifiers with a scale per row."""

from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.layers import NormedLinear
from mmdet.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class ScaledLinear(nn.Linear):
    """Compute z_c = s_c (w_c . x) + b_c, with a scale s_c per output.

    In learnable weight scaling (LWS), a second stage with a class-balanced
    sampler trains s alone, see docs/classifier_only.md. The background row
    has a scale, too. A checkpoint of a plain linear layer gives s = 1.
    Arguments are those of ``nn.Linear``.

    Source: Kang et al., Decoupling Representation and Classifier for
    Long-Tailed Recognition, ICLR 2020, https://arxiv.org/abs/1910.09217,
    Eq. 5.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.scale = nn.Parameter(torch.ones(self.out_features))

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs (N, D) of features (N, F)."""
        return F.linear(x, self.weight * self.scale[:, None], self.bias)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        if f'{prefix}weight' in state_dict:
            ones = {f'{prefix}scale': torch.ones_like(self.scale)}
            state_dict = ones | state_dict
        super()._load_from_state_dict(state_dict, prefix, *args)


@MODELS.register_module()
class ScaledNormedLinear(NormedLinear):
    """Scale the outputs of mmdet's ``NormedLinear``, without its bias.

    z_c = s_c T cos(w_c, x) + b_c, with s = 1 at first and T the temperature.
    Norms of rows do not matter there, so a scale per class, such as a
    calibration's, cannot be in the weight. Arguments are those of
    ``NormedLinear``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.scale = nn.Parameter(torch.ones(self.out_features))

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs (N, D) of features (N, F)."""
        bias = 0.0 if self.bias is None else self.bias
        return (super().forward(x) - bias) * self.scale + bias

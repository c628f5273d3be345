"""Calibration of a finished classifier, which trains nothing.

Each method is a scale s and a shift d of the logits of the classes,
z'_c = s_c z_c + d_c. All other logits (background, foreground, others) stay.
The weights and the bias of a linear layer take both in exactly. Strength 0 is
s = 1 and d = 0.

Shapes: C classes (foreground only), F features.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from mmdet_longtail.models.losses import tau_norm_scale


class Calibration(NamedTuple):
    """Scale and shift of the logits of the classes, (C,) float64 each."""

    scale: Tensor
    shift: Tensor


def norcal(image_count: Tensor, strength: float) -> Calibration:
    r"""Divide the exponential of each class's logit by a power of its count.

    .. math::
        p_c = \frac{e^{z_c} / n_c^\gamma}
                   {e^{z_{bg}} + \sum_k e^{z_k} / n_k^\gamma}

    which is d_c = -gamma log n_c, with n = image_count, at least 1, and
    gamma the strength.

    Source: Pan et al., On Model Calibration for Long-Tailed Object Detection
    and Instance Segmentation, NeurIPS 2021,
    https://arxiv.org/abs/2107.02170, and its code (NorCal).
    """
    n = image_count.double().clamp(min=1)
    return Calibration(torch.ones_like(n), -strength * n.log())


def logit_adjustment(instance_count: Tensor, strength: float) -> Calibration:
    r"""Subtract the logarithm of each class's prior from its logit.

    .. math::
        d_c = -\tau \log(C \pi_c), \qquad \pi_c = n_c / \textstyle\sum_k n_k

    with n = instance_count, at least 1, and tau the strength. The factor C,
    which a softmax without background does not notice, makes 1 / C the prior
    that every class gets and leaves background the prior that it has. Classes
    with as many boxes each stay as they are.

    Source: Menon et al., Long-Tail Learning via Logit Adjustment, ICLR 2021,
    https://arxiv.org/abs/2007.07314, Eq. 9, the post-hoc form.
    """
    n = instance_count.double().clamp(min=1)
    prior = n / n.sum()
    shift = -strength * (len(n) * prior).log()
    return Calibration(torch.ones_like(n), shift)


def fracal(
    image_frequency: Tensor,
    fractal_dimension: Tensor,
    strength: float,
    dimension_weight: float = 2.0,
) -> Calibration:
    r"""Calibrate by the frequency and by the spread of each class's boxes.

    .. math::
        d_c = -t \, (\log_{10}(C f_c) + \lambda \log D_c)

    with f = image_frequency (above 0), D the fractal dimension of the class's
    box centers, lambda = dimension_weight and t the strength; 1 is as
    published. Background has d = 0 and D = 1. The base 10 is the paper's.

    Source: Alexandridis et al., Fractal Calibration for Long-Tailed Object
    Detection, CVPR 2025, https://arxiv.org/abs/2410.11774, and its code
    (fracal_bbox_head.py), for a softmax.
    """
    f, D = image_frequency.double(), fractal_dimension.double()
    shift = (len(f) * f).log10() + dimension_weight * D.log()
    return Calibration(torch.ones_like(f), -strength * shift)


def logn(mean: Tensor, variance: Tensor, strength: float) -> Calibration:
    r"""Normalize each class's logit by its mean and deviation over RoIs.

    .. math::
        z'_c = \frac{z_c - t \, (\mu_c - \beta)}{\sigma_c^t}, \qquad
        \beta = \min_k \mu_k

    with sigma^2 the variance, at least 1e-11, and t the strength; 1 is as
    published. Background keeps its logit.

    Source: Zhao et al., Logit Normalization for Long-Tail Object Detection,
    IJCV 2024, https://arxiv.org/abs/2203.17020, and its code.
    """
    deviation = variance.double().clamp(min=1e-11).sqrt()
    scale = deviation**-strength
    mean = mean.double()
    return Calibration(scale, -strength * (mean - mean.min()) * scale)


def tau_norm(
    class_weight: Tensor,
    bias: Tensor,
    strength: float,
    as_published: bool = False,
) -> Calibration:
    """Equalize the norms of the classes' rows (C, F) by `tau_norm_scale`.

    z_c = w_c . x + b_c becomes s_c w_c . x + b_c: the biases (C,) stay.
    """
    scale = tau_norm_scale(class_weight.double(), strength, as_published)
    return Calibration(scale, bias.double() * (1 - scale))

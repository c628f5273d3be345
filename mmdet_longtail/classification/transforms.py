"""Augmentation of CIFAR."""

from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmpretrain.registry import TRANSFORMS
from PIL import Image
from torchvision.transforms import AutoAugment, AutoAugmentPolicy


@TRANSFORMS.register_module()
class CIFARAutoAugment(BaseTransform):
    """torchvision's AutoAugment with the policy found on CIFAR-10.

    Changes ``img``, an RGB image (H, W, 3) uint8. Empty areas become gray.

    Source: Cubuk et al., AutoAugment: Learning Augmentation Strategies from
    Data, CVPR 2019, who use this policy for CIFAR-100 too.
    """

    def __init__(self) -> None:
        self.augment = AutoAugment(AutoAugmentPolicy.CIFAR10, fill=[128] * 3)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        image = Image.fromarray(results['img'])
        results['img'] = np.asarray(self.augment(image))
        return results

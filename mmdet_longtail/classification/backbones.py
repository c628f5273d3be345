"""The two small networks of the EQL paper's classification tables."""

from __future__ import annotations

from typing import Any

from mmpretrain.models.backbones import ResNet, ResNet_CIFAR
from mmpretrain.models.backbones.resnet import BasicBlock
from mmpretrain.registry import MODELS
from torch import Tensor, nn


class ZeroPadShortcut(nn.Module):
    """Every second pixel, padded with channels of zeros: He et al.'s option A.

    It has no parameters.
    """

    def __init__(self, num_added: int) -> None:
        super().__init__()
        self.num_added = num_added

    def forward(self, x: Tensor) -> Tensor:
        """Convert (N, C, H, W) to (N, C + num_added, H / 2, W / 2)."""
        padding = (0, 0, 0, 0, 0, self.num_added)
        return nn.functional.pad(x[:, :, ::2, ::2], padding)


@MODELS.register_module()
class CIFARResNet32(ResNet_CIFAR):
    """The ResNet-32 for CIFAR: 3 stages of 5 basic blocks, 16-32-64 channels.

    The last feature map has 64 channels and a quarter of the input's width.

    Source: He et al., Deep Residual Learning for Image Recognition, CVPR
    2016, section 4.2: 0.46 million parameters with 10 classes. Other arguments
    are those of mmpretrain's ResNet_CIFAR.
    """

    arch_settings = {32: (BasicBlock, (5, 5, 5))}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            depth=32,
            stem_channels=16,
            base_channels=16,
            num_stages=3,
            strides=(1, 2, 2),
            dilations=(1, 1, 1),
            out_indices=(2,),
            **kwargs,
        )

    def make_res_layer(
        self, in_channels: int, out_channels: int, **kwargs: Any
    ) -> nn.Module:
        layer = super().make_res_layer(
            in_channels=in_channels, out_channels=out_channels, **kwargs
        )
        if out_channels > in_channels:
            layer[0].downsample = ZeroPadShortcut(out_channels - in_channels)
        return layer


@MODELS.register_module()
class ResNet10(ResNet):
    """A ResNet with one basic block per stage, 64-128-256-512 channels.

    Source: Liu et al., Large-Scale Long-Tailed Recognition in an Open World,
    CVPR 2019, who use it on ImageNet-LT. Other arguments are those of
    mmpretrain's ResNet.
    """

    arch_settings = {10: (BasicBlock, (1, 1, 1, 1))}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(depth=10, **kwargs)

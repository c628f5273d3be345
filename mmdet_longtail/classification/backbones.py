"""The two small networks of the EQL paper's classification tables."""

from typing import Any

from mmpretrain.models.backbones import ResNet, ResNet_CIFAR
from mmpretrain.models.backbones.resnet import BasicBlock
from mmpretrain.registry import MODELS
from torch import nn


def zero_pad_shortcut(num_added: int) -> nn.Module:
    """Build the shortcut of option A of He et al., without parameters.

    It takes every second pixel, and pads (N, C, H, W) with channels of zeros
    to (N, C + num_added, H / 2, W / 2).
    """
    pad = nn.ConstantPad3d((0, 0, 0, 0, 0, num_added), 0)
    return nn.Sequential(nn.MaxPool2d(1, stride=2), pad)


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
            layer[0].downsample = zero_pad_shortcut(out_channels - in_channels)
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

"""Long-tailed image classification with mmpretrain.

The import registers this package in ``mmpretrain.registry``. Configs name it
in ``custom_imports`` beside ``mmdet_longtail``. Names in ``mmdet.registry``
need their scope, such as ``mmdet.ClassStatisticsHook`` and
``mmdet.SoftmaxEqualizationClassificationLoss``.
"""

from mmdet_longtail.compat import check_mmpretrain

check_mmpretrain()

# These need the version that the line above has checked.
from mmdet_longtail.classification.backbones import CIFARResNet32, ResNet10
from mmdet_longtail.classification.datasets import (
    CIFAR100LT,
    CIFARAutoAugment,
    ImageNetLT,
)
from mmdet_longtail.classification.shot_accuracy import ShotAccuracy
from mmdet_longtail.utils.arguments import explain_mistakes

explain_mistakes('mmpretrain')

__all__ = [
    'CIFAR100LT',
    'CIFARAutoAugment',
    'CIFARResNet32',
    'ImageNetLT',
    'ResNet10',
    'ShotAccuracy',
]

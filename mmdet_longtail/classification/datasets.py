"""The two long-tailed sets of the EQL paper's classification tables."""

from __future__ import annotations

from typing import Any

from mmengine.fileio import exists, join_path, list_from_file
from mmpretrain.datasets import CIFAR100, CustomDataset
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES
from mmpretrain.registry import DATASETS

from mmdet_longtail.classification.long_tail import (
    exponential_image_count,
    select_images,
)
from mmdet_longtail.errors import LongTailError


@DATASETS.register_module()
class CIFAR100LT(CIFAR100):
    """CIFAR-100 with fewer and fewer training images from class to class.

    With imbalance 200 class 0 has 500 training images and class 99 has 2,
    9,502 in all. The test split stays whole.

    Source: Cui et al., Class-Balanced Loss Based on Effective Number of
    Samples, CVPR 2019.

    Args:
        imbalance (float): Training images of class 0 over those of class 99,
            1 to 500. Defaults to 200.
        selection_seed (int): Which images of a class stay. Defaults to 0.
        **kwargs: Arguments of mmpretrain's CIFAR100.

    Raises:
        LongTailError: If imbalance is outside its range.
    """

    def __init__(
        self, imbalance: float = 200, selection_seed: int = 0, **kwargs: Any
    ) -> None:
        num_classes = len(self.METAINFO['classes'])
        self.image_count = exponential_image_count(num_classes, 500, imbalance)
        self.selection_seed = selection_seed
        super().__init__(**kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        data_list = super().load_data_list()
        if self.split == 'test':
            return data_list
        labels = [info['gt_label'] for info in data_list]
        selected = select_images(labels, self.image_count, self.selection_seed)
        return [data_list[image] for image in selected]


@DATASETS.register_module()
class ImageNetLT(CustomDataset):
    """Images of ImageNet that a list file names, one a line: path and label.

    ``ann_file`` is ImageNet_LT_train.txt (115,846 images, 1280 to 5 a class)
    or ImageNet_LT_test.txt (50,000) as they were published. Paths are
    relative to ``data_root``, labels are 0..999 in the order of the synsets.

    Source: Liu et al., Large-Scale Long-Tailed Recognition in an Open World,
    CVPR 2019.

    Args:
        ann_file (str): The list file.
        **kwargs: Arguments of mmpretrain's CustomDataset, such as data_root.

    Raises:
        LongTailError: If the list file is missing or empty, or a line of it
            is not a path and the label of a class.
    """

    METAINFO = {'classes': IMAGENET_CATEGORIES}

    def __init__(self, ann_file: str, **kwargs: Any) -> None:
        super().__init__(ann_file=ann_file, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        if not exists(self.ann_file):
            raise LongTailError(
                f'{self.ann_file}: no such list file; put the lists of '
                'ImageNet-LT there, or correct data_root and ann_file'
            )
        data_list = [
            self._parse(line, number)
            for number, line in enumerate(list_from_file(self.ann_file), 1)
        ]
        if not data_list:
            raise LongTailError(f'{self.ann_file}: the list file is empty')
        return data_list

    def _parse(self, line: str, number: int) -> dict[str, Any]:
        path, _, label = line.strip().rpartition(' ')
        num_classes = len(self.metainfo['classes'])
        if not path or not label.isdecimal() or int(label) >= num_classes:
            raise LongTailError(
                f'{self.ann_file}: line {number} is {line!r}, expected a path '
                f'and a label in 0..{num_classes - 1}'
            )
        return {
            'img_path': join_path(self.img_prefix, path),
            'gt_label': int(label),
        }

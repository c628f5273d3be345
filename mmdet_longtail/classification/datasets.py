"""The long-tailed datasets of the EQL paper's classification tables."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.fileio import exists, join_path, list_from_file
from mmpretrain.datasets import CIFAR100, CustomDataset
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES
from mmpretrain.registry import DATASETS, TRANSFORMS
from PIL import Image
from torchvision.transforms import AutoAugment, AutoAugmentPolicy

from mmdet_longtail.errors import check


def exponential_image_count(
    num_classes: int, largest: int, imbalance: float
) -> np.ndarray:
    """Compute the images per class of a long-tailed dataset, (C,) int64.

    n_c = floor(n_0 * imbalance^(-c / (C - 1))), c = 0..C-1 (Cui et al.,
    Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019).

    Args:
        num_classes (int): C, at least 2.
        largest (int): n_0, images of class 0, the most frequent.
        imbalance (float): n_0 / n_(C-1), 1 to n_0.

    Raises:
        LongTailError: If imbalance is out of its range.
    """
    position = np.arange(num_classes) / (num_classes - 1)
    image_count = np.floor(largest * (1 / max(imbalance, 1)) ** position)
    check(
        imbalance >= 1 and image_count[-1] >= 1,
        f'imbalance is {imbalance}, expected 1 to {largest}: the images of '
        'the most frequent class divided by those of the rarest',
    )
    return image_count.astype(np.int64)


def select_images(
    labels: Sequence[int], image_count: np.ndarray, seed: int
) -> np.ndarray:
    """Draw image_count images, (C,), per class, without replacement.

    Returns their positions in labels, (N,), rising.

    Raises:
        LongTailError: If a class has too few images.
    """
    rng = np.random.default_rng(seed)
    selected = []
    for label, wanted in enumerate(image_count):
        images = np.flatnonzero(np.equal(labels, label))
        check(
            len(images) >= wanted,
            f'class {label} has {len(images)} images, but {wanted} are to be '
            'drawn from it',
        )
        selected.append(rng.permutation(images)[:wanted])
    return np.sort(np.concatenate(selected))


@DATASETS.register_module()
class CIFAR100LT(CIFAR100):
    """CIFAR-100 whose training images per class fall exponentially.

    With imbalance 200 class 0 has 500 training images and class 99 has 2,
    9,502 in total. The test split is complete.

    Source: Cui et al., Class-Balanced Loss Based on Effective Number of
    Samples, CVPR 2019.

    Args:
        imbalance (float): Training images of class 0 divided by those of
            class 99, 1 to 500.
        selection_seed (int): Random seed of the selected images.
        **kwargs: Arguments of mmpretrain's CIFAR100.
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
    """Images of ImageNet from a list file with a path and a label per line.

    ``ann_file`` is the published ImageNet_LT_train.txt (115,846 images, 1280
    to 5 per class) or ImageNet_LT_test.txt (50,000). Paths are relative to
    ``data_root``; labels are 0..999 in the order of the synsets.

    Source: Liu et al., Large-Scale Long-Tailed Recognition in an Open World,
    CVPR 2019.

    Raises:
        LongTailError: If the list file is missing or empty, or if a line is
            not a path and the label of a class.
    """

    METAINFO = {'classes': IMAGENET_CATEGORIES}

    def load_data_list(self) -> list[dict[str, Any]]:
        check(
            exists(self.ann_file),
            f'{self.ann_file}: no such list file; put the lists of '
            'ImageNet-LT there, or correct data_root and ann_file',
        )
        lines = list_from_file(self.ann_file)
        check(lines, f'{self.ann_file}: the list file is empty')
        num_classes = len(self.metainfo['classes'])
        data_list = []
        for number, line in enumerate(lines, 1):
            path, _, label = line.strip().rpartition(' ')
            check(
                path and label.isdecimal() and int(label) < num_classes,
                f'{self.ann_file}: line {number} is {line!r}, expected a path '
                f'and a label in 0..{num_classes - 1}',
            )
            image_path = join_path(self.img_prefix, path)
            data_list.append(dict(img_path=image_path, gt_label=int(label)))
        return data_list


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

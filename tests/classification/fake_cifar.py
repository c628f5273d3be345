"""CIFAR-100 as it lies on disk, with one color per class."""

import pickle

import numpy as np

from mmdet_longtail.classification import CIFAR100LT
from mmdet_longtail.classification.long_tail import exponential_image_count

# mmpretrain compares checksums, unless it is told None for them.
WITHOUT_CHECKSUMS = """
from mmdet_longtail.classification import CIFAR100LT
CIFAR100LT.train_list = [['train', None]]
CIFAR100LT.test_list = [['test', None]]
"""


def write_cifar100(folder):
    """Write as many training images as CIFAR100LT takes and one a class."""
    rng = np.random.default_rng(0)
    colors = rng.integers(0, 255, (100, 3))
    base = folder / CIFAR100LT.base_folder
    base.mkdir(parents=True)
    image_count = {
        'train': exponential_image_count(100, 500, 200) + 1,
        'test': np.ones(100, dtype=int),
    }
    for split, count in image_count.items():
        labels = rng.permutation(np.repeat(np.arange(100), count))
        images = np.repeat(colors[labels], 32 * 32, 1)  # channels first
        content = {
            'data': images.astype(np.uint8),
            'fine_labels': labels.tolist(),
        }
        (base / split).write_bytes(pickle.dumps(content))

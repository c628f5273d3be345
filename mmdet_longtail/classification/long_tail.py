"""Makes a balanced set of images long-tailed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmdet_longtail.errors import LongTailError


def exponential_image_count(
    num_classes: int, largest: int, imbalance: float
) -> np.ndarray:
    """Say how many images each class of a long-tailed set has.

    n_c = floor(n_0 * imbalance^(-c / (C - 1))), c = 0..C-1 (Cui et al.,
    Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019).

    Args:
        num_classes (int): C, at least 2.
        largest (int): n_0, images of class 0, which has most.
        imbalance (float): n_0 / n_(C-1), at least 1.

    Returns:
        np.ndarray: image_count, (C,) int64, falling.

    Raises:
        LongTailError: If imbalance is below 1, or leaves a class no image.
    """
    if imbalance < 1:
        raise LongTailError(
            f'imbalance is {imbalance}, expected at least 1: the images of '
            'the most frequent class over those of the rarest'
        )
    position = np.arange(num_classes) / (num_classes - 1)
    image_count = np.floor(largest * (1 / imbalance) ** position)
    if image_count[-1] < 1:
        raise LongTailError(
            f'imbalance is {imbalance}, but the most frequent class has '
            f'{largest} images, so that the rarest would have none; expected '
            f'at most {largest}'
        )
    return image_count.astype(np.int64)


def select_images(
    labels: Sequence[int], image_count: np.ndarray, seed: int
) -> np.ndarray:
    """Draw the images of each class that stay, without replacement.

    Args:
        labels (Sequence[int]): Label of each image, (N,).
        image_count (np.ndarray): Images wanted of each class, (C,).
        seed (int): The same seed draws the same images.

    Returns:
        np.ndarray: Positions in labels, rising, (sum of image_count,) int64.

    Raises:
        LongTailError: If a class has fewer images than wanted.
    """
    rng = np.random.default_rng(seed)
    selected = []
    for label, wanted in enumerate(image_count):
        images = np.flatnonzero(np.equal(labels, label))
        if len(images) < wanted:
            raise LongTailError(
                f'class {label} has {len(images)} images, but {wanted} are '
                'to be drawn from it'
            )
        selected.append(rng.permutation(images)[:wanted])
    return np.sort(np.concatenate(selected))

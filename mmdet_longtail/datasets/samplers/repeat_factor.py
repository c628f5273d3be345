"""Repeat factor sampling (RFS)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from mmdet.registry import DATA_SAMPLERS
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from mmdet_longtail.datasets.samplers.image_classes import (
    image_classes,
    log_epoch,
)
from mmdet_longtail.errors import LongTailError


def repeat_factors(
    image_index: np.ndarray,
    class_index: np.ndarray,
    class_frequency: np.ndarray,
    num_images: int,
    oversample_thr: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Say how often an epoch shows each class and each image.

    r(c) = max(1, sqrt(t / f(c))), and r(I) is the largest r(c) of the classes
    in I (Gupta et al., LVIS: A Dataset for Large Vocabulary Instance
    Segmentation, CVPR 2019).

    Args:
        image_index (np.ndarray): The images of P pairs of an image and a
            class in it, (P,), none of them twice.
        class_index (np.ndarray): The classes of the pairs, (P,), in [0, C).
        class_frequency (np.ndarray): f(c), (C,), above 0.
        num_images (int): N, annotated or not.
        oversample_thr (float): t, in (0, 1].

    Returns:
        tuple[np.ndarray, np.ndarray]: r(c), (C,), and r(I), (N,), both 1 or
        more. An image without a class has 1.
    """
    t = oversample_thr
    f = class_frequency  # (C,)
    r_class = np.maximum(1, np.sqrt(t / f))  # (C,)
    r_image = np.ones(num_images)  # (N,)
    np.maximum.at(r_image, image_index, r_class[class_index])
    return r_class, r_image


@DATA_SAMPLERS.register_module()
class RepeatFactorSampler(Sampler):
    """Shows images of rare classes more often, as Detectron2 does.

    An image I is shown r(I) times an epoch on average (`repeat_factors`). The
    sampler draws an endless stream of passes over the dataset. A pass holds
    each image floor(r(I)) times, and once more with the probability of the
    rest, in random order; so every image is in every pass. Epochs are cut
    from the stream. All are round(sum of r(I)) images long, so most begin and
    end within a pass.

    Ranks take turns in the stream. Where their number does not divide an
    epoch, the epoch takes the next images of the stream as well, and the one
    after it begins behind them: nothing is shown twice for it or left out.
    Epoch e is a function of the seed, e and the number of ranks only, so a
    resumed run goes on as if it had not stopped, given
    ``randomness=dict(seed=...)``. An iteration-based loop starts epoch after
    epoch, so it goes through the same stream.

    f(c) is counted over the images that the sampler sees, after the filters
    of the dataset, as in Detectron2. Each rank counts for itself: all have
    the dataset, and would only wait for the one that counts.

    LVIS has a threshold of 1e-3. On mmdet's LVIS bases, whose dataset repeats
    images itself::

        train_dataloader = dict(
            sampler=dict(
                _delete_=True, type='RepeatFactorSampler',
                oversample_thr=1e-3),
            dataset=dict(oversample_thr=0.0))

    Args:
        dataset (mmengine.dataset.BaseDataset): Any dataset with
            ``get_cat_ids``, wrapped, repeated or concatenated.
        oversample_thr (float): t, in (0, 1]; classes in a smaller share of
            the images are repeated.
        seed (int, optional): 0 or more, the same on all ranks. Defaults to
            None, a random one that the ranks share.

    Raises:
        LongTailError: If the threshold is out of its range, if the dataset
            does not tell the classes of its images, if it repeats some
            already, or if no image holds a class.
    """

    def __init__(
        self, dataset: Any, oversample_thr: float, seed: int | None = None
    ) -> None:
        if not isinstance(oversample_thr, float | int) or not (
            0 < oversample_thr <= 1
        ):
            raise LongTailError(
                f'{type(self).__name__}: oversample_thr is '
                f'{oversample_thr!r}, expected a number above 0 and up to 1, '
                'the frequency below which a class is repeated; to repeat '
                'none use DefaultSampler'
            )
        self.rank, self.world_size = get_dist_info()
        self.dataset = dataset
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0
        image_index, labels, num_instances = image_classes(dataset)
        classes, class_index = np.unique(labels, return_inverse=True)
        r_class, self.repeat_factor = repeat_factors(
            image_index,
            class_index,
            self.class_frequency(class_index, num_instances),
            len(dataset),
            oversample_thr,
        )
        epoch_length = round(self.repeat_factor.sum())
        self.num_samples = math.ceil(epoch_length / self.world_size)
        self.total_size = self.num_samples * self.world_size
        most = r_class.argmax()
        log_epoch(self, classes[most].item(), r_class[most])

    def class_frequency(
        self, class_index: np.ndarray, num_instances: np.ndarray
    ) -> np.ndarray:
        """f(c), the share of images with the class (C,).

        Args:
            class_index (np.ndarray): The classes of P pairs of an image and a
                class in it (P,), in [0, C); each class is in one of them.
            num_instances (np.ndarray): Instances of the class in the image
                (P,).
        """
        return np.bincount(class_index) / len(self.dataset)

    def _repeats(self, number: int) -> tuple[np.ndarray, np.random.Generator]:
        """Draw how often a pass holds each image, (N,).

        Also gives the generator, for what else the pass draws.
        """
        # The sum of both, as mmengine has it, would give the next seed the
        # same passes again.
        generator = np.random.default_rng((self.seed, number))
        whole = np.floor(self.repeat_factor)
        rest = self.repeat_factor - whole
        more = generator.random(len(rest)) < rest
        return whole.astype(np.int64) + more, generator

    def _pass(self, number: int) -> np.ndarray:
        """Images of one pass in the order in which they are shown."""
        repeats, generator = self._repeats(number)
        indices = np.arange(len(repeats)).repeat(repeats)
        return generator.permutation(indices)

    def __iter__(self) -> Iterator[int]:
        start = self.epoch * self.total_size
        number = 0
        # To skip a pass, its length is enough.
        while start >= (length := int(self._repeats(number)[0].sum())):
            start -= length
            number += 1
        indices = self._pass(number)[start:]
        while len(indices) < self.total_size:
            number += 1
            indices = np.concatenate([indices, self._pass(number)])
        epoch = indices[: self.total_size]
        return iter(epoch[self.rank :: self.world_size].tolist())

    def __len__(self) -> int:
        """Images of an epoch on this rank."""
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next, as mmengine does.

        Args:
            epoch (int): 0 or more.
        """
        self.epoch = epoch


@DATA_SAMPLERS.register_module()
class InstanceAwareRepeatFactorSampler(RepeatFactorSampler):
    """Repeat factor sampling by images and instances (IRFS).

    f(c) is the geometric mean of the share of images with the class and the
    share that it has of all instances (Yaman et al., Instance-Aware Repeat
    Factor Sampling for Long-Tailed Object Detection, 2023,
    https://arxiv.org/abs/2305.08069), so that of two classes in as many
    images the one with fewer boxes is shown more often. The rest, and the
    arguments, are those of :class:`RepeatFactorSampler`. The shares of
    instances add up to 1, those of images to the classes of a mean image, so
    f(c) is mostly smaller here, and the same threshold repeats more.
    """

    def class_frequency(
        self, class_index: np.ndarray, num_instances: np.ndarray
    ) -> np.ndarray:
        """f(c), by images and instances (C,); see the base class."""
        f_image = super().class_frequency(class_index, num_instances)
        instance_count = np.bincount(class_index, num_instances)
        f_instance = instance_count / instance_count.sum()
        return np.sqrt(f_image * f_instance)

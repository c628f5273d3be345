"""Repeat factor sampling (RFS)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from mmdet.registry import DATA_SAMPLERS
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.samplers.image_classes import image_classes, log_epoch


def repeat_factors(
    image_index: np.ndarray,
    class_index: np.ndarray,
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
        class_index (np.ndarray): The classes of the pairs, (P,), in [0, C);
            each class is in at least one image.
        num_images (int): N, annotated or not.
        oversample_thr (float): t, in (0, 1].

    Returns:
        tuple[np.ndarray, np.ndarray]: r(c), (C,), and r(I), (N,), both 1 or
        more. An image without a class has 1.
    """
    t = oversample_thr
    f = np.bincount(class_index) / num_images  # (C,)
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
                f'RepeatFactorSampler: oversample_thr is {oversample_thr!r}, '
                'expected a number above 0 and up to 1, the share of images '
                'below which a class is repeated; to repeat none use '
                'DefaultSampler'
            )
        self.rank, self.world_size = get_dist_info()
        self.dataset = dataset
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0
        image_index, labels = image_classes(dataset)
        classes, class_index = np.unique(labels, return_inverse=True)
        r_class, self.repeat_factor = repeat_factors(
            image_index, class_index, len(dataset), oversample_thr
        )
        epoch_length = round(self.repeat_factor.sum())
        self.num_samples = math.ceil(epoch_length / self.world_size)
        self.total_size = self.num_samples * self.world_size
        most = r_class.argmax()
        log_epoch(self, classes[most].item(), r_class[most])

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

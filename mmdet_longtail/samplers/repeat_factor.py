"""Repeat factor sampling (RFS)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from mmdet.registry import DATA_SAMPLERS
from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.logging import print_log
from torch.utils.data import Sampler

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.samplers.image_classes import class_name, image_classes


def repeat_factors(
    image_index: np.ndarray,
    class_index: np.ndarray,
    num_images: int,
    oversample_thr: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Say how often each class and each image is shown in an epoch.

    r(c) = max(1, sqrt(t / f(c))) and r(I) = max of r(c) over the classes c in
    I (Gupta et al., LVIS, CVPR 2019, appendix "Dataset details": repeat
    factor sampling).

    Args:
        image_index (np.ndarray): The image of each occurrence, (P,).
        class_index (np.ndarray): The class of each occurrence, (P,), in
            [0, C); no pair of image and class is there twice, and each class
            is in at least one image.
        num_images (int): N, annotated or not.
        oversample_thr (float): t, in (0, 1].

    Returns:
        tuple[np.ndarray, np.ndarray]: r(c), (C,), and r(I), (N,), both 1 or
        more. An image without a class has 1.
    """
    f = np.bincount(class_index) / num_images  # (C,)
    r_class = np.maximum(1, np.sqrt(oversample_thr / f))  # (C,)
    r_image = np.ones(num_images)  # (N,)
    np.maximum.at(r_image, image_index, r_class[class_index])
    return r_class, r_image


@DATA_SAMPLERS.register_module()
class RepeatFactorSampler(Sampler):
    """Shows images of rare classes more often, as Detectron2 does.

    An image I is shown r(I) times on average (see `repeat_factors`). The
    sampler draws an endless stream of passes over the dataset. A pass holds
    each image floor(r(I)) times, once more with the probability of what is
    left, in random order; so every image is in every pass. Epochs are cut
    from the stream and have all the same length, round(sum of r(I)), so an
    epoch may end within a pass.

    Ranks take turns in the stream. An epoch whose length the number of ranks
    does not divide takes the next images of the stream as well, and the next
    epoch starts behind them: nothing is padded or dropped. Epoch e is a
    function of the seed, e and the number of ranks only, so a resumed run
    goes on as if it had not stopped, given ``randomness=dict(seed=...)``.

    f(c) is counted over the images that the sampler sees, after the filters
    of the dataset, as in Detectron2. Each rank counts for itself: all have
    the dataset, and would otherwise wait for the one that counts.

    In an iteration-based loop the stream goes on where an epoch ends, so
    there is no infinite variant. The threshold of LVIS is 1e-3.

    Args:
        dataset (mmengine.dataset.BaseDataset): Any dataset with
            ``get_cat_ids``, wrapped, repeated or concatenated.
        oversample_thr (float): t; classes in a smaller share of the images
            are repeated. In (0, 1].
        seed (int, optional): The same on all ranks, 0 or more. Defaults to
            None, a random one that the ranks share.

    Raises:
        LongTailError: If the threshold is out of its range, if the dataset
            does not tell the classes of its images, or if none holds one.
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
        self.num_samples = -(-epoch_length // self.world_size)
        self.total_size = self.num_samples * self.world_size
        most = r_class.argmax()
        print_log(
            f'RepeatFactorSampler: an epoch has {self.total_size} images, '
            f'{self.total_size / len(dataset):.2f} times the {len(dataset)} '
            f'of the dataset; most repeated is '
            f'{class_name(dataset, classes[most])}, {r_class[most]:.2f} times',
            logger='current',
        )

    def _generator(self, number: int) -> np.random.Generator:
        """Random numbers of one pass.

        seed + number, as mmengine has it, would give run after run with the
        next seed the same passes again.
        """
        return np.random.default_rng((self.seed, number))

    def _repeats(self, generator: np.random.Generator) -> np.ndarray:
        """How often each image is in a pass, (N,)."""
        whole = np.floor(self.repeat_factor).astype(np.int64)
        rest = self.repeat_factor - whole
        return whole + (generator.random(len(rest)) < rest)

    def _pass(self, number: int) -> np.ndarray:
        """The images of one pass in the order in which they are shown."""
        generator = self._generator(number)
        repeats = self._repeats(generator)
        return generator.permutation(
            np.repeat(np.arange(len(repeats)), repeats)
        )

    def __iter__(self) -> Iterator[int]:
        start = self.epoch * self.total_size
        number = 0
        # Half a millisecond for each earlier pass over 100,000 images.
        while start >= (
            length := self._repeats(self._generator(number)).sum()
        ):
            start -= length
            number += 1
        indices = self._pass(number)[start:]
        while len(indices) < self.total_size:
            number += 1
            indices = np.concatenate([indices, self._pass(number)])
        epoch = indices[: self.total_size]
        yield from epoch[self.rank :: self.world_size].tolist()

    def __len__(self) -> int:
        """Images of an epoch on this rank."""
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next; mmengine does.

        Args:
            epoch (int): 0 or more.
        """
        self.epoch = epoch

"""Repeat factor sampling (RFS)."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from mmdet.registry import DATA_SAMPLERS
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from mmdet_longtail.datasets.samplers.image_classes import (
    count_image_classes,
    log_epoch,
)
from mmdet_longtail.structures.repeat_factor import repeat_factors
from mmdet_longtail.utils.checks import check_numbers


@DATA_SAMPLERS.register_module()
class RepeatFactorSampler(Sampler):
    """Shows images of rare classes more often, as Detectron2 does.

    An image I is shown r(I) times per epoch on average
    (`mmdet_longtail.structures.repeat_factor.repeat_factors`). The sampler
    draws an endless stream of passes over the dataset. A pass shows each image
    floor(r(I)) times, and once more with a probability of r(I) - floor(r(I)),
    in random order. Epochs are cut from the stream. Each is round(sum of
    r(I)) images long, so most epochs begin and end within a pass.

    Ranks take turns in the stream. Where their number does not divide an
    epoch, the epoch also takes the next images of the stream, and the next
    epoch begins behind them. No image is shown twice or left out for this.
    Epoch e is a function of the seed, e and the number of ranks only, so a
    resumed run equals an uninterrupted one, given
    ``randomness=dict(seed=...)``. An iteration-based loop goes through the
    same stream, epoch after epoch.

    f(c) is the fraction of the images that the filters of the dataset leave,
    as in Detectron2. It differs from `ClassStatistics.image_frequency`, whose
    denominator is all images of the split. Each rank counts for itself.

    LVIS has a threshold of 1e-3. On mmdet's LVIS bases, whose dataset repeats
    images itself::

        train_dataloader = dict(
            sampler=dict(
                _delete_=True, type='RepeatFactorSampler',
                oversample_thr=1e-3),
            dataset=dict(oversample_thr=0.0))

    Args:
        dataset (mmengine.dataset.BaseDataset): See `count_image_classes`.
        oversample_thr (float): t, in (0, 1]; classes with a smaller f(c) are
            repeated.
        seed (int, optional): 0 or more, the same on all ranks. Defaults to
            None, a random one that the ranks share.

    Raises:
        LongTailError: If the threshold is out of its range. See also
            `count_image_classes`.
    """

    def __init__(
        self, dataset: Any, oversample_thr: float, seed: int | None = None
    ) -> None:
        check_numbers(
            type(self).__name__, '(0, 1]', oversample_thr=oversample_thr
        )
        self.rank, self.world_size = get_dist_info()
        self.dataset = dataset
        self.seed = sync_random_seed() if seed is None else seed
        self.epoch = 0
        image_index, labels, num_instances = count_image_classes(dataset)
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
        rarest = r_class.argmax()
        log_epoch(self, classes[rarest].item(), r_class[rarest])

    def class_frequency(
        self, class_index: np.ndarray, num_instances: np.ndarray
    ) -> np.ndarray:
        """Compute f(c), the fraction of images with the class, (C,).

        Args:
            class_index (np.ndarray): The classes of P pairs of an image and a
                class in it, (P,), in [0, C); each class is in a pair.
            num_instances (np.ndarray): Instances per pair, (P,).
        """
        return np.bincount(class_index) / len(self.dataset)

    def _draw_pass(self, number: int) -> np.ndarray:
        """Draw the images of a pass, in order."""
        # With their sum, as in mmengine, the next seed would repeat the
        # passes of this one.
        generator = np.random.default_rng((self.seed, number))
        whole = np.floor(self.repeat_factor)
        rest = self.repeat_factor - whole
        repeats = whole + (generator.random(len(rest)) < rest)
        images = np.arange(len(rest)).repeat(repeats.astype(np.int64))
        return generator.permutation(images)

    def __iter__(self) -> Iterator[int]:
        passes = (self._draw_pass(n).tolist() for n in itertools.count())
        stream = itertools.chain.from_iterable(passes)
        start = self.epoch * self.total_size
        end = start + self.total_size
        return itertools.islice(
            stream, start + self.rank, end, self.world_size
        )

    def __len__(self) -> int:
        """Return the number of images per epoch on this rank."""
        return self.num_samples

    def set_epoch(self, epoch: int) -> None:
        """Set the next epoch, 0 or more; mmengine calls it."""
        self.epoch = epoch


@DATA_SAMPLERS.register_module()
class InstanceAwareRepeatFactorSampler(RepeatFactorSampler):
    """Repeat factor sampling by images and instances (IRFS).

    f(c) is the geometric mean of two fractions: of the images with the class,
    and of the instances of the class among all instances (Yaman et al.,
    Instance-Aware Repeat Factor Sampling for Long-Tailed Object Detection,
    2023, https://arxiv.org/abs/2305.08069). Of two classes in equally many
    images, the one with fewer boxes is shown more.

    The fractions of instances sum to 1, those of images to the mean number of
    classes per image. f(c) is therefore mostly smaller here, and the same
    threshold repeats more.
    """

    def class_frequency(
        self, class_index: np.ndarray, num_instances: np.ndarray
    ) -> np.ndarray:
        """Compute f(c) by images and instances, (C,); see the base class."""
        f_image = super().class_frequency(class_index, num_instances)
        instance_count = np.bincount(class_index, num_instances)
        f_instance = instance_count / instance_count.sum()
        return np.sqrt(f_image * f_instance)

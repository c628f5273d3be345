"""Samplers that show rare classes more often."""

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from mmdet.datasets.samplers import ClassAwareSampler
from mmdet.registry import DATA_SAMPLERS
from mmengine.dataset import ConcatDataset
from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.logging import print_log
from torch.utils.data import Sampler

from mmdet_longtail.errors import LongTailError, check
from mmdet_longtail.structures.repeat_factor import repeat_factors
from mmdet_longtail.utils.checks import check_numbers
from mmdet_longtail.utils.class_names import dataset_classes


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
        name = type(self).__name__
        check_numbers(name, '(0, 1]', oversample_thr=oversample_thr)
        if seed is not None:
            check_numbers(name, '[0, inf)', seed=seed)
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

    def _draw_repeats(
        self, number: int
    ) -> tuple[np.random.Generator, np.ndarray]:
        """Draw the showings of each image in a pass, (N,) int64."""
        # With their sum, as in mmengine, the next seed would repeat the
        # passes of this one.
        generator = np.random.default_rng((self.seed, number))
        whole = np.floor(self.repeat_factor)
        rest = self.repeat_factor - whole
        repeats = whole + (generator.random(len(rest)) < rest)
        return generator, repeats.astype(np.int64)

    def _draw_pass(self, number: int) -> np.ndarray:
        """Draw the images of a pass, in order."""
        generator, repeats = self._draw_repeats(number)
        return generator.permutation(np.arange(len(repeats)).repeat(repeats))

    def __iter__(self) -> Iterator[int]:
        start, first = self.epoch * self.total_size, 0
        while start >= (length := self._draw_repeats(first)[1].sum()):
            start, first = start - length, first + 1
        passes = (self._draw_pass(n).tolist() for n in itertools.count(first))
        return itertools.islice(
            itertools.chain.from_iterable(passes),
            start + self.rank,
            start + self.total_size,
            self.world_size,
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


@DATA_SAMPLERS.register_module()
class ClassAwareImageSampler(ClassAwareSampler):
    """Draws a class uniformly, then an image with this class uniformly.

    Class-aware sampling (Shen et al., Relay Backpropagation, ECCV 2016,
    https://arxiv.org/abs/1512.05830). Each round visits every class once, in
    random order. The images of a class are visited in rounds too. All classes
    are therefore drawn equally often, and so are all images of a class.

    This is mmdet's ``ClassAwareSampler`` for any dataset. mmdet's needs
    ``get_cat_ids`` of the outermost dataset, and as many names in
    ``metainfo`` as there are labels. Classes without an image are left out.
    An epoch is as long as the dataset, rounded up to a multiple of the number
    of ranks. Each rank has its own part. Epoch e is a function of the seed, e
    and the number of ranks only, so a resumed run equals an uninterrupted
    one, given ``randomness=dict(seed=...)``.

    Args:
        dataset (mmengine.dataset.BaseDataset): See `count_image_classes`.
        seed (int, optional): The same on all ranks. Defaults to None, a
            random one that the ranks share.
    """

    def __init__(self, dataset: Any, seed: int | None = None) -> None:
        super().__init__(dataset, seed)
        rarest = min(self.valid_cat_inds, key=lambda c: self.num_cat_imgs[c])
        draws_per_class = self.total_size / self.num_classes
        log_epoch(self, rarest, draws_per_class / self.num_cat_imgs[rarest])

    def get_cat2imgs(self) -> dict[int, list[int]]:
        """List the images of each label."""
        image_index, labels, _ = count_image_classes(self.dataset)
        order = labels.argsort(kind='stable')
        images_per_label = np.split(
            image_index[order], np.bincount(labels).cumsum()[:-1]
        )
        return dict(enumerate(images.tolist() for images in images_per_label))


def count_image_classes(
    dataset: Any,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count the instances of each class in each image, in one pass.

    Two counts differ from those of `ClassStatistics`. The images are those
    that the filters of the dataset leave. The classes are those of
    ``get_cat_ids``, which includes crowds. Detectron2 counts both this way.

    Args:
        dataset (mmengine.dataset.BaseDataset): Any dataset with
            ``get_cat_ids``, wrapped, repeated or concatenated.

    Returns:
        tuple[np.ndarray, np.ndarray, np.ndarray]: image_index, label and
        number of instances, all (P,) int64, of P pairs of an image and a
        class in it, no pair twice, in order of the images.

    Raises:
        LongTailError: If the dataset does not give the labels of its images,
            repeats images itself, or has no annotation.
    """
    labels_per_image = [*map(tuple, _labels_per_image(dataset))]
    num_images = len(dataset)
    if len(labels_per_image) != num_images:  # a wrapper that selects images
        raise _without_labels(dataset)
    labels = np.array([*itertools.chain(*labels_per_image)], np.int64)
    check(
        labels.size,
        f'{type(dataset).__name__}: none of its {num_images} images has an '
        'annotation, but a sampler needs their classes; check ann_file, '
        'filter_cfg and metainfo of the training set',
    )
    images = np.arange(num_images).repeat([*map(len, labels_per_image)])
    num_labels = labels.max() + 1
    pairs, num_instances = np.unique(
        images * num_labels + labels, return_counts=True
    )
    image_index, label = np.divmod(pairs, num_labels)
    return image_index, label, num_instances


def log_epoch(sampler: Any, label: int, repeats: float) -> None:
    """Log a sampler's epoch length and the most repeated label."""
    dataset = sampler.dataset
    names = dataset_classes(dataset) if hasattr(dataset, 'metainfo') else None
    name = names[label] if names and label < len(names) else label
    print_log(
        f'{type(sampler).__name__}: an epoch has {sampler.total_size} images, '
        f'{sampler.total_size / len(dataset):.2f} times the {len(dataset)} of '
        f'the dataset; most repeated is class {name!r}, each of its images '
        f'{repeats:.2f} times',
        logger='current',
    )


def _labels_per_image(dataset: Any) -> Iterator[Iterable[int]]:
    """Yield the labels of each image, once per instance, through wrappers."""
    if hasattr(dataset, 'get_cat_ids'):
        repeated_below = getattr(dataset, 'oversample_thr', 0)
        check(
            repeated_below <= 0,
            f'{type(dataset).__name__} repeats images by its oversample_thr='
            f'{repeated_below}, and the sampler would repeat them again; set '
            'oversample_thr=0.0 in the dataset',
        )
        try:
            for index in range(len(dataset)):
                yield dataset.get_cat_ids(index)
        except NotImplementedError:  # mmengine's BaseDataset raises it
            raise _without_labels(dataset) from None
    elif isinstance(dataset, ConcatDataset):
        for part in dataset.datasets:
            yield from _labels_per_image(part)
    elif hasattr(dataset, 'dataset'):  # RepeatDataset, MultiImageMixDataset
        labels = list(_labels_per_image(dataset.dataset))
        # Not the one that SeededDataset passes on.
        yield from labels * vars(dataset).get('times', 1)
    else:
        raise _without_labels(dataset)


def _without_labels(dataset: Any) -> LongTailError:
    return LongTailError(
        f'{type(dataset).__name__} does not give the classes of its images, '
        'which a sampler needs; add a method get_cat_ids(index) that returns '
        'their labels'
    )

"""The classes in each image of a dataset, as samplers need them."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.logging import print_log

from mmdet_longtail.errors import LongTailError, check
from mmdet_longtail.utils.class_names import dataset_classes


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
    num_classes: list[int] = []  # per image
    labels: list[int] = []
    num_instances: list[int] = []
    for counts in map(Counter, _labels_per_image(dataset)):
        num_classes.append(len(counts))
        labels += counts
        num_instances += counts.values()
    if len(num_classes) != len(dataset):  # a wrapper that selects images
        raise _without_labels(dataset)
    check(
        labels,
        f'{type(dataset).__name__}: none of its {len(dataset)} images has an '
        'annotation, but a sampler needs their classes; check ann_file, '
        'filter_cfg and metainfo of the training set',
    )
    return (
        np.arange(len(dataset)).repeat(num_classes),
        np.array(labels, np.int64),
        np.array(num_instances, np.int64),
    )


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
    elif isinstance(dataset, RepeatDataset):
        yield from list(_labels_per_image(dataset.dataset)) * dataset.times
    elif hasattr(dataset, 'dataset'):  # MultiImageMixDataset
        yield from _labels_per_image(dataset.dataset)
    else:
        raise _without_labels(dataset)


def _without_labels(dataset: Any) -> LongTailError:
    return LongTailError(
        f'{type(dataset).__name__} does not give the classes of its images, '
        'which a sampler needs; add a method get_cat_ids(index) that returns '
        'their labels'
    )

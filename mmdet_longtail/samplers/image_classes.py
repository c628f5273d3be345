"""Which classes each image of a dataset holds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.hooks.class_statistics import dataset_classes


def image_classes(dataset: Any) -> tuple[np.ndarray, np.ndarray]:
    """Pair each image with each class in it, in one pass.

    The classes are those of ``get_cat_ids``, so boxes that training ignores
    (crowds) count too, as they do in Detectron2: ``get_cat_ids`` does not
    tell them apart.

    Args:
        dataset (mmengine.dataset.BaseDataset): Any dataset with
            ``get_cat_ids``, wrapped, repeated or concatenated.

    Returns:
        tuple[np.ndarray, np.ndarray]: image_index and label, both (P,)
        int64, a pair for each of the P occurrences, in order of the images.

    Raises:
        LongTailError: If the dataset does not tell the classes of its
            images, or if no image holds one.
    """
    image_index: list[int] = []
    labels: list[int] = []
    for index in range(len(dataset)):
        classes = set(_classes_of(dataset, index))
        image_index += [index] * len(classes)
        labels += classes
    if not labels:
        raise LongTailError(
            f'{type(dataset).__name__}: none of its {len(dataset)} images '
            'has an annotation, but a sampler needs the classes in them; '
            'check ann_file, filter_cfg and metainfo of the training set'
        )
    return np.array(image_index), np.array(labels)


def _classes_of(dataset: Any, index: int) -> Iterable[int]:
    """Open what mmengine and mmdet wrap around a dataset."""
    while not hasattr(dataset, 'get_cat_ids'):
        if hasattr(dataset, 'datasets'):  # ConcatDataset
            part, index = dataset._get_ori_dataset_idx(index)
            dataset = dataset.datasets[part]
            continue
        if hasattr(dataset, '_get_ori_dataset_idx'):  # RepeatDataset
            index = dataset._get_ori_dataset_idx(index)
        if not hasattr(dataset, 'dataset'):
            raise _without_labels(dataset)
        dataset = dataset.dataset
    try:
        return dataset.get_cat_ids(index)
    except NotImplementedError:  # what mmengine's BaseDataset raises
        raise _without_labels(dataset) from None


def _without_labels(dataset: Any) -> LongTailError:
    return LongTailError(
        f'{type(dataset).__name__} does not tell the classes of its images: '
        'a sampler needs the method get_cat_ids(index), which gives their '
        'labels'
    )


def class_name(dataset: Any, label: int) -> str:
    """Call a class by its name, where the dataset says it.

    Args:
        dataset (mmengine.dataset.BaseDataset): Any dataset.
        label (int): A label that `image_classes` gave.
    """
    names = dataset_classes(dataset) if hasattr(dataset, 'metainfo') else None
    return f'class {label if names is None else names[label]!r}'

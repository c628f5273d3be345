"""Which classes each image of a dataset holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.logging import print_log

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.utils.class_names import dataset_classes


def image_classes(
    dataset: Any,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pair each image with each class in it, in one pass.

    The classes are those of ``get_cat_ids``, which does not say what training
    ignores: a crowd counts too, as it does in Detectron2.

    Args:
        dataset (mmengine.dataset.BaseDataset): Any dataset with
            ``get_cat_ids``, wrapped, repeated or concatenated.

    Returns:
        tuple[np.ndarray, np.ndarray, np.ndarray]: image_index, label and
        the number of instances, all (P,) int64, of P pairs in order of the
        images, none of them twice.

    Raises:
        LongTailError: If the dataset does not tell the classes of its
            images, if it repeats some already, or if no image holds a class.
    """
    num_classes: list[int] = []
    labels: list[int] = []
    num_instances: list[int] = []
    for classes in map(Counter, _labels(dataset)):
        num_classes.append(len(classes))
        labels += classes
        num_instances += classes.values()
    if len(num_classes) != len(dataset):  # a wrapper that picks images
        raise _without_labels(dataset)
    if not labels:
        raise LongTailError(
            f'{type(dataset).__name__}: none of its {len(dataset)} images '
            'has an annotation, but a sampler needs the classes in them; '
            'check ann_file, filter_cfg and metainfo of the training set'
        )
    return (
        np.arange(len(dataset)).repeat(num_classes),
        np.array(labels, np.int64),
        np.array(num_instances, np.int64),
    )


def log_epoch(sampler: Any, label: int, times: float) -> None:
    """Say on rank 0 what an epoch is.

    Args:
        sampler (torch.utils.data.Sampler): With dataset and total_size.
        label (int): The class whose images are repeated most.
        times (float): How often an epoch shows each of them, at least.
    """
    dataset = sampler.dataset
    names = dataset_classes(dataset) if hasattr(dataset, 'metainfo') else None
    name = names[label] if names and label < len(names) else label
    print_log(
        f'{type(sampler).__name__}: an epoch has {sampler.total_size} images, '
        f'{sampler.total_size / len(dataset):.2f} times the {len(dataset)} of '
        f'the dataset; most repeated is class {name!r}, each of its images '
        f'{times:.2f} times',
        logger='current',
    )


def _labels(dataset: Any) -> Iterator[Iterable[int]]:
    """Open what mmengine and mmdet wrap around datasets."""
    if hasattr(dataset, 'get_cat_ids'):
        if getattr(dataset, 'oversample_thr', 0) > 0:
            raise LongTailError(
                f'{type(dataset).__name__} repeats images by its '
                f'oversample_thr={dataset.oversample_thr}, and the sampler '
                'would repeat them again; set oversample_thr=0.0 in the '
                'dataset'
            )
        try:
            for index in range(len(dataset)):
                yield dataset.get_cat_ids(index)
        except NotImplementedError:  # mmengine's BaseDataset raises it
            raise _without_labels(dataset) from None
    elif isinstance(dataset, ConcatDataset):
        for part in dataset.datasets:
            yield from _labels(part)
    elif isinstance(dataset, RepeatDataset):
        yield from list(_labels(dataset.dataset)) * dataset.times
    elif hasattr(dataset, 'dataset'):  # MultiImageMixDataset
        yield from _labels(dataset.dataset)
    else:
        raise _without_labels(dataset)


def _without_labels(dataset: Any) -> LongTailError:
    return LongTailError(
        f'{type(dataset).__name__} does not tell the classes of its images: '
        'a sampler needs its method get_cat_ids(index), which gives their '
        'labels'
    )

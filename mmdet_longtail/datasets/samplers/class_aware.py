"""Class-aware sampling."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmdet.datasets.samplers import ClassAwareSampler
from mmdet.registry import DATA_SAMPLERS

from mmdet_longtail.datasets.samplers.image_classes import (
    image_classes,
    log_epoch,
)


@DATA_SAMPLERS.register_module()
class ClassAwareImageSampler(ClassAwareSampler):
    """Draws a class first, each as often, then an image that holds it.

    Class-aware sampling (Shen et al., Relay Backpropagation, ECCV 2016,
    https://arxiv.org/abs/1512.05830). The classes come in rounds, each class
    once a round, in random order; the images of a class likewise. So all
    classes are drawn equally often, and so are all images of a class.

    mmdet's sampler, for any dataset: its own needs ``get_cat_ids`` of the
    outermost one, and as many names in ``metainfo`` as there are labels.
    Classes without an image are left out. An epoch is as long as the dataset,
    rounded up to a multiple of the number of ranks; each rank has its own
    part. Epoch e is a function of the seed, e and the number of ranks only,
    so a resumed run goes on as if it had not stopped, given
    ``randomness=dict(seed=...)``.

    Args:
        dataset (mmengine.dataset.BaseDataset): Any dataset with
            ``get_cat_ids``, wrapped, repeated or concatenated.
        seed (int, optional): The same on all ranks. Defaults to None, a
            random one that the ranks share.

    Raises:
        LongTailError: If the dataset does not tell the classes of its images,
            if it repeats some already, or if no image holds a class.
    """

    def __init__(self, dataset: Any, seed: int | None = None) -> None:
        super().__init__(dataset, seed)
        fewest = min(self.valid_cat_inds, key=lambda c: self.num_cat_imgs[c])
        draws = self.total_size / self.num_classes
        log_epoch(self, fewest, draws / self.num_cat_imgs[fewest])

    def get_cat2imgs(self) -> dict[int, list[int]]:
        """List the images of each label."""
        image_index, labels, _ = image_classes(self.dataset)
        order = labels.argsort(kind='stable')
        per_label = np.split(
            image_index[order], np.bincount(labels).cumsum()[:-1]
        )
        return {
            label: images.tolist() for label, images in enumerate(per_label)
        }

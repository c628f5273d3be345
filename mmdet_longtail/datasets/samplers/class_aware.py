"""Class-aware sampling."""

from typing import Any

import numpy as np
from mmdet.datasets.samplers import ClassAwareSampler
from mmdet.registry import DATA_SAMPLERS

from mmdet_longtail.datasets.samplers.image_classes import (
    count_image_classes,
    log_epoch,
)


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

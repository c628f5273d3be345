"""A dataset of which only the classes in its images are known."""

from collections.abc import Sequence
from typing import Any

from mmdet.datasets import BaseDetDataset
from mmdet.registry import DATASETS

NAMES = ('often', 'seldom', 'rare', 'never')


@DATASETS.register_module()
class Labels(BaseDetDataset):
    """Images of which only the classes are known."""

    METAINFO = dict(classes=NAMES)

    def __init__(
        self, classes_of_images: Sequence[Sequence[int]], **options: Any
    ) -> None:
        self.classes_of_images = classes_of_images
        # To serialise collects garbage, which takes longer than a test.
        super().__init__(ann_file='', serialize_data=False, **options)

    def load_data_list(self) -> list[dict]:
        return [
            {
                'img_id': index,
                'width': 10 + index % 3,
                'height': 11,
                'instances': [{'bbox_label': c} for c in classes],
            }
            for index, classes in enumerate(self.classes_of_images)
        ]


def some_labels() -> list[list[int]]:
    """61 images: class 0 in most, class 2 in one, class 3 and 5 in none."""
    labels = [[0, 0, 1] if i % 9 == 0 else [0] for i in range(57)]
    return [*labels, [2, 0], [], [4, 1, 4], [4]]

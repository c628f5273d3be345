"""Time how samplers read the classes of a dataset.

Compared with one pass of ``get_cat_ids``, on a generated dataset like LVIS
v1: 12.7 boxes per image in 1,203 classes, polygons with 34 corners, stored as
mmengine stores annotations. All run in one process and in turn, so that a
slow moment of the machine affects all of them. Each time is the minimum of
some repeats, in processor seconds::

    python tools/benchmarks/samplers.py
"""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from mmdet.datasets import BaseDetDataset
from mmdet.datasets.samplers import ClassAwareSampler
from mmengine.dataset import ClassBalancedDataset
from mmengine.logging import MMLogger
from timing import benchmark_parser, seconds_in_turn, show

from mmdet_longtail.datasets.samplers import (
    ClassAwareImageSampler,
    RepeatFactorSampler,
)

NUM_CLASSES = 1203
BOXES_PER_IMAGE = 12.7
CORNERS = 34
OVERSAMPLE_THR = 1e-3
LATE_EPOCH = 30
ONE_PASS = 'a pass of get_cat_ids'


class GeneratedDataset(BaseDetDataset):
    """Boxes and polygons whose class counts fall as 1 / rank."""

    METAINFO = dict(classes=tuple(map(str, range(NUM_CLASSES))))

    def __init__(self, num_images: int) -> None:
        self.num_images = num_images
        super().__init__(ann_file='')

    def load_data_list(self) -> list[dict]:
        rng = np.random.default_rng(0)
        share = 1 / np.arange(1, NUM_CLASSES + 1)
        share /= share.sum()
        return [self._image(rng, share, i) for i in range(self.num_images)]

    def _image(
        self, rng: np.random.Generator, share: np.ndarray, index: int
    ) -> dict:
        num_boxes = rng.poisson(BOXES_PER_IMAGE)
        labels = rng.choice(NUM_CLASSES, num_boxes, p=share).tolist()
        boxes = rng.uniform(0, 480, (num_boxes, 4 + 2 * CORNERS)).round(2)
        return dict(
            img_id=index,
            img_path=f'images/{index:012}.jpg',
            height=480,
            width=640,
            instances=[
                dict(ignore_flag=0, bbox=b[:4], bbox_label=c, mask=[b[4:]])
                for c, b in zip(labels, boxes.tolist())
            ],
        )


def draw_late_epoch(sampler: Any) -> None:
    """Draw an epoch that a resumed run may start with."""
    sampler.set_epoch(LATE_EPOCH)
    deque(sampler, maxlen=0)


def subjects(num_images: int) -> dict[str, Callable[[], object]]:
    """Return what is timed, by name."""
    dataset = GeneratedDataset(num_images)
    thr = OVERSAMPLE_THR
    late = f', epoch {LATE_EPOCH}'
    return {
        ONE_PASS: lambda: [*map(dataset.get_cat_ids, range(num_images))],
        'RepeatFactorSampler': lambda: RepeatFactorSampler(dataset, thr, 0),
        'ClassAwareImageSampler': lambda: ClassAwareImageSampler(dataset, 0),
        "mmengine's ClassBalancedDataset": lambda: ClassBalancedDataset(
            dataset, thr
        ),
        "mmdet's ClassAwareSampler": lambda: ClassAwareSampler(dataset, 0),
        f'RepeatFactorSampler{late}': partial(
            draw_late_epoch, RepeatFactorSampler(dataset, thr, seed=0)
        ),
        f'ClassAwareImageSampler{late}': partial(
            draw_late_epoch, ClassAwareImageSampler(dataset, seed=0)
        ),
    }


def main() -> None:
    parser = benchmark_parser(
        __doc__,
        images=(20_000, 'images of the dataset'),
        repeats=(3, 'measurements of each'),
    )
    args = parser.parse_args()
    MMLogger.get_current_instance().setLevel('WARNING')
    seconds = seconds_in_turn(subjects(args.images), args.repeats)
    least = {name: min(times) for name, times in seconds.items()}
    rows = [
        {
            '': name,
            'seconds': f'{t:.3f}',
            'x a pass': f'{t / least[ONE_PASS]:.2f}',
        }
        for name, t in least.items()
    ]
    title = f'{args.images:,} images, {NUM_CLASSES:,} classes'
    show(title, rows, least, args.json)


if __name__ == '__main__':
    main()

"""Time how samplers read the classes of a dataset.

Compared with one pass of ``get_cat_ids``, on a generated dataset like LVIS
v1: 12.7 boxes per image in 1,203 classes, polygons with 34 corners, stored as
mmengine stores annotations. All run in one process and in turn, so that a
slow moment of the machine affects all of them. Each time is the minimum of
some repeats, in processor seconds::

    python tools/benchmarks/samplers.py
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.datasets import BaseDetDataset
from mmdet.datasets.samplers import ClassAwareSampler
from mmengine.dataset import ClassBalancedDataset
from mmengine.logging import MMLogger
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mmdet_longtail.cli.options import command_parser
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


def measure(num_images: int, repeats: int) -> dict[str, float]:
    """Measure the processor seconds of each subject."""
    dataset = GeneratedDataset(num_images)
    thr = OVERSAMPLE_THR
    repeat_factor = RepeatFactorSampler(dataset, thr, seed=0)
    class_aware = ClassAwareImageSampler(dataset, seed=0)
    subjects: dict[str, Callable[[], Any]] = {
        ONE_PASS: lambda: [*map(dataset.get_cat_ids, range(num_images))],
        'RepeatFactorSampler': lambda: RepeatFactorSampler(dataset, thr, 0),
        'ClassAwareImageSampler': lambda: ClassAwareImageSampler(dataset, 0),
        "mmengine's ClassBalancedDataset": lambda: ClassBalancedDataset(
            dataset, thr
        ),
        "mmdet's ClassAwareSampler": lambda: ClassAwareSampler(dataset, 0),
        f'RepeatFactorSampler, epoch {LATE_EPOCH}': lambda: draw_late_epoch(
            repeat_factor
        ),
        f'ClassAwareImageSampler, epoch {LATE_EPOCH}': lambda: draw_late_epoch(
            class_aware
        ),
    }
    seconds = dict.fromkeys(subjects, float('inf'))
    console = Console(stderr=True)
    for _ in track(range(repeats), 'measuring', console=console):
        for name, run in subjects.items():
            start = time.process_time()
            run()
            seconds[name] = min(seconds[name], time.process_time() - start)
    return seconds


def main() -> None:
    parser = command_parser(__doc__)
    parser.add_argument(
        '--images', type=int, default=20_000, help='default 20,000'
    )
    parser.add_argument(
        '--repeats', type=int, default=3, help='of each; default 3'
    )
    parser.add_argument('--json', type=Path, help='write the figures here')
    args = parser.parse_args()
    MMLogger.get_current_instance().setLevel('WARNING')
    result = measure(args.images, args.repeats)
    table = Table(
        *('', 'seconds', 'x a pass'),
        title=f'{args.images:,} images, {NUM_CLASSES:,} classes',
    )
    for name, seconds in result.items():
        ratio = seconds / result[ONE_PASS]
        table.add_row(name, f'{seconds:.3f}', f'{ratio:.2f}')
    Console().print(table)
    if args.json is not None:
        args.json.write_text(json.dumps(result, indent=1) + '\n')


if __name__ == '__main__':
    main()

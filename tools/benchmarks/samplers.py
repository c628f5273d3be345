"""Time how samplers read the classes of a dataset.

Against one pass of ``get_cat_ids``, on a generated dataset as LVIS v1's: 12.7
boxes an image in 1,203 classes, polygons of 34 corners, kept as mmengine keeps
annotations. In one process and in turn, so that a slow moment of the machine
hits all of them; processor seconds, the least of some repeats::

    python tools/benchmarks/samplers.py
"""

from __future__ import annotations

import argparse
import json
import time
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

from mmdet_longtail.datasets.samplers import (
    ClassAwareImageSampler,
    RepeatFactorSampler,
)

NUM_CLASSES = 1203
BOXES_PER_IMAGE = 12.7
CORNERS = 34
OVERSAMPLE_THR = 1e-3
LATE_EPOCH = 30


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
        return [
            {
                'img_id': index,
                'img_path': f'images/{index:012}.jpg',
                'height': 480,
                'width': 640,
                'instances': [
                    {
                        'ignore_flag': 0,
                        'bbox': numbers[:4],
                        'bbox_label': label,
                        'mask': [numbers[4:]],
                    }
                    for label, numbers in zip(labels, boxes.tolist())
                ],
            }
            for index in range(self.num_images)
            for labels in [
                rng.choice(
                    NUM_CLASSES, rng.poisson(BOXES_PER_IMAGE), p=share
                ).tolist()
            ]
            for boxes in [
                rng.uniform(0, 480, (len(labels), 4 + 2 * CORNERS)).round(2)
            ]
        ]


def read_all(dataset: BaseDetDataset) -> None:
    """Do what everything here is compared with."""
    for index in range(len(dataset)):
        dataset.get_cat_ids(index)


def late_epoch(sampler: Any) -> None:
    """Draw an epoch that a resumed run may start with."""
    sampler.set_epoch(LATE_EPOCH)
    for _ in sampler:
        pass


def measure(num_images: int, repeats: int) -> dict[str, float]:
    """Processor seconds of each subject."""
    dataset = GeneratedDataset(num_images)
    repeat_factor = RepeatFactorSampler(dataset, OVERSAMPLE_THR, seed=0)
    class_aware = ClassAwareImageSampler(dataset, seed=0)
    subjects: dict[str, Callable[[], Any]] = {
        'a pass of get_cat_ids': lambda: read_all(dataset),
        'RepeatFactorSampler': lambda: RepeatFactorSampler(
            dataset, OVERSAMPLE_THR, seed=0
        ),
        'ClassAwareImageSampler': lambda: ClassAwareImageSampler(
            dataset, seed=0
        ),
        "mmengine's ClassBalancedDataset": lambda: ClassBalancedDataset(
            dataset, OVERSAMPLE_THR
        ),
        "mmdet's ClassAwareSampler": lambda: ClassAwareSampler(
            dataset, seed=0
        ),
        f'RepeatFactorSampler, epoch {LATE_EPOCH}': lambda: late_epoch(
            repeat_factor
        ),
        f'ClassAwareImageSampler, epoch {LATE_EPOCH}': lambda: late_epoch(
            class_aware
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in subjects}
    console = Console(stderr=True)
    for _ in track(range(repeats), 'measuring', console=console):
        for name, run in subjects.items():
            start = time.process_time()
            run()
            seconds[name].append(time.process_time() - start)
    return {name: min(times) for name, times in seconds.items()}


def show(result: dict[str, float], title: str) -> None:
    """Print the table."""
    table = Table(title=title)
    table.add_column('')
    table.add_column('seconds', justify='right')
    table.add_column('x a pass', justify='right')
    one_pass = result['a pass of get_cat_ids']
    for name, seconds in result.items():
        table.add_row(name, f'{seconds:.3f}', f'{seconds / one_pass:.2f}')
    Console().print(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description='Time how samplers read the classes of a dataset'
    )
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
    show(result, f'{args.images:,} images, {NUM_CLASSES:,} classes')
    if args.json is not None:
        args.json.write_text(json.dumps(result, indent=1) + '\n')


if __name__ == '__main__':
    main()

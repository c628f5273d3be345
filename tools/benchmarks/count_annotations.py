"""Measure the cost of counting a file of the size of LVIS v1.

    python tools/benchmarks/count_annotations.py

Generates the file (1.27 million boxes in 100 thousand images), then reads it
in fresh processes, alternately with ``json.load`` alone and with the counting
of ``ClassStatistics.from_annotation_file``. Printed are medians.
"""

import json
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from timing import benchmark_parser, in_fresh_process, memory, show

from mmdet_longtail.structures.annotations import parse_annotations
from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.utils.fileio import read_json

NUM_CLASSES = 1203
BOXES_PER_IMAGE = 12.68


def generate(path: Path, num_images: int, points: int) -> None:
    """Write LVIS-like annotations whose class counts fall as 1 / rank."""
    rng = np.random.default_rng(0)
    num_boxes = round(BOXES_PER_IMAGE * num_images)
    share = 1 / np.arange(1, NUM_CLASSES + 1)
    labels = rng.choice(NUM_CLASSES, num_boxes, p=share / share.sum()) + 1
    images = rng.integers(num_images, size=num_boxes) + 1
    numbers = rng.uniform(1, 600, (num_boxes, 4 + 2 * points)).round(2)
    image = {
        'width': 640,
        'height': 480,
        'neg_category_ids': [],
        'not_exhaustive_category_ids': [],
    }
    content = {
        'categories': [
            {'id': i, 'name': f'class_{i}'} for i in range(1, NUM_CLASSES + 1)
        ],
        'images': [
            {'id': i, 'file_name': f'{i:012}.jpg', **image}
            for i in range(1, num_images + 1)
        ],
        'annotations': [
            {
                'id': i,
                'image_id': image_id,
                'category_id': label,
                'bbox': values[:4],
                'area': values[2] * values[3],
                'segmentation': [values[4:]],
            }
            for i, (image_id, label, values) in enumerate(
                zip(images.tolist(), labels.tolist(), numbers.tolist()), 1
            )
        ],
    }
    path.write_text(json.dumps(content), encoding='utf-8')


def measure(path: str, counts: bool) -> tuple[float, float]:
    """Read a file and perhaps count it: processor seconds, peak in MB."""
    start = time.process_time()
    content = read_json(path)
    if counts:
        ClassStatistics.from_annotations(parse_annotations(content, path))
    return time.process_time() - start, memory('VmHWM') / 1e6


def main() -> None:
    parser = benchmark_parser(
        __doc__,
        images=(100_170, 'images of the file'),
        runs=(3, 'measurements of each'),
        points=(10, 'corners of the polygon of each box'),
    )
    args = parser.parse_args()
    runs: dict[str, list[tuple[float, float]]] = {
        'json.load': [],
        'json.load and counting': [],
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'train.json')
        in_fresh_process(generate, path, args.images, args.points)
        for _ in track(
            range(args.runs), 'measuring', console=Console(stderr=True)
        ):
            for name, found in runs.items():
                counts = name != 'json.load'
                found.append(in_fresh_process(measure, str(path), counts))
        size = path.stat().st_size / 1e6
    medians = {name: np.median(found, axis=0) for name, found in runs.items()}
    rows = [
        {'': name, 'CPU s': f'{seconds:.2f}', 'peak MB': f'{peak:,.0f}'}
        for name, (seconds, peak) in medians.items()
    ]
    show(
        f'{size:,.0f} MB, {args.images:,} images, {NUM_CLASSES:,} classes',
        rows,
        {name: found.tolist() for name, found in medians.items()},
        args.json,
    )


if __name__ == '__main__':
    main()

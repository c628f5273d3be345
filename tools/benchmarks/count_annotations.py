"""Measure the cost of counting a file of the size of LVIS v1.

    python tools/benchmarks/count_annotations.py

Generates the file (1.27 million boxes in 100 thousand images), then reads it
in fresh processes, alternately with ``json.load`` alone and with the counting
of ``ClassStatistics.from_annotation_file``. Needs numpy only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np

NUM_CLASSES = 1203
NUM_IMAGES = 100_170
NUM_BOXES = 1_270_141

CODE = """
import json, resource, sys, time
from mmdet_longtail.structures.annotations import parse_annotations
from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.utils.fileio import read_json
start = time.process_time()
content = read_json(sys.argv[1])
loaded = time.process_time()
if sys.argv[2] == 'count':
    ClassStatistics.from_annotations(parse_annotations(content, ''))
end = time.process_time()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([loaded - start, end - loaded, peak]))
"""


def main() -> None:
    """Generate, measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--runs', type=int, default=3)
    parser.add_argument(
        '--points',
        type=int,
        default=10,
        help='corners of the polygon of each box; 0 for boxes only',
    )
    args = parser.parse_args()
    runs: dict[str, list[list[float]]] = {'load': [], 'count': []}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'train.json'
        print('generating ...', flush=True)
        generate(path, args.points)
        for i in range(args.runs):
            print(f'run {i + 1} of {args.runs} ...', flush=True)
            for work, results in runs.items():
                command = [sys.executable, '-c', CODE, str(path), work]
                results.append(json.loads(subprocess.check_output(command)))
        size = path.stat().st_size / 1e6
    load, _, load_peak = map(median, zip(*runs['load']))
    _, count, count_peak = map(median, zip(*runs['count']))
    print(
        f'\n{size:,.0f} MB, {NUM_BOXES:,} boxes, {NUM_IMAGES:,} images, '
        f'{NUM_CLASSES:,} classes; processor seconds, median of {args.runs}\n'
        f'  json.load               {load:7.2f} s\n'
        f'  counting beyond that    {count:7.2f} s\n'
        f'  peak of json.load       {load_peak:7,.0f} MB\n'
        f'  peak with counting      {count_peak:7,.0f} MB, '
        f'{count_peak / load_peak:.3f} times'
    )


def generate(path: Path, points: int) -> None:
    """Write LVIS-like annotations whose class counts fall as 1 / rank."""
    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, NUM_CLASSES + 1)
    labels = rng.choice(NUM_CLASSES, NUM_BOXES, p=share / share.sum()) + 1
    images = rng.integers(NUM_IMAGES, size=NUM_BOXES) + 1
    numbers = rng.uniform(1, 600, (NUM_BOXES, 4 + 2 * points)).round(2)
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
            for i in range(1, NUM_IMAGES + 1)
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


if __name__ == '__main__':
    main()

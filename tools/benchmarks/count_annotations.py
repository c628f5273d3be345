"""Measure what counting costs on a file of the size of LVIS v1.

Generates the file (1.27 million boxes in 100 thousand images), then reads it
in fresh processes, alternately with ``json.load`` alone and with what
``ClassStatistics.from_annotation_file`` does. Needs numpy only::

    python tools/benchmarks/count_annotations.py
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np

NUM_CLASSES = 1203
NUM_IMAGES = 100_170
NUM_BOXES = 1_270_141

LOAD = """
content = read_json(path)
loaded = time.process_time()
"""
COUNT = """
content = read_json(path)
loaded = time.process_time()
ClassStatistics.from_annotations(parse_annotations(content, path))
"""
FRAME = """
import json, resource, sys, time
from mmdet_longtail.structures.annotations import parse_annotations
from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.utils.fileio import read_json
path = sys.argv[1]
start = time.process_time()
{work}
end = time.process_time()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps(dict(load=loaded - start, beyond=end - loaded, peak=peak)))
"""


def main() -> None:
    """Generate, measure and print a table."""
    parser = argparse.ArgumentParser(
        description='Measure what counting costs on a file of the size of '
        'LVIS v1.'
    )
    parser.add_argument('--runs', type=int, default=3)
    parser.add_argument(
        '--points',
        type=int,
        default=10,
        help='corners of the polygon of each box; 0 for boxes only',
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'train.json'
        print('generating ...', flush=True)
        generate(path, args.points)
        runs: dict[str, list[dict[str, float]]] = {'load': [], 'count': []}
        for i in range(args.runs):
            print(f'run {i + 1} of {args.runs} ...', flush=True)
            runs['load'].append(measure(LOAD, path))
            runs['count'].append(measure(COUNT, path))
        size = path.stat().st_size / 1e6
    load, count = (
        {
            key: statistics.median(run[key] for run in of_one)
            for key in of_one[0]
        }
        for of_one in runs.values()
    )
    print(
        f'\n{size:,.0f} MB, {NUM_BOXES:,} boxes, {NUM_IMAGES:,} images, '
        f'{NUM_CLASSES:,} classes; processor seconds, median of {args.runs}\n'
        f'  json.load               {load["load"]:7.2f} s\n'
        f'  counting beyond that    {count["beyond"]:7.2f} s\n'
        f'  peak of json.load       {load["peak"]:7,.0f} MB\n'
        f'  peak with counting      {count["peak"]:7,.0f} MB, '
        f'{count["peak"] / load["peak"]:.3f} times'
    )


def measure(work: str, path: Path) -> dict[str, float]:
    """Run a piece of code in a fresh process."""
    result = subprocess.run(
        [sys.executable, '-c', FRAME.format(work=work), str(path)],
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(result.stdout)


def generate(path: Path, points: int) -> None:
    """Write LVIS-like annotations whose class counts fall as 1 / rank."""
    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, NUM_CLASSES + 1)
    labels = rng.choice(NUM_CLASSES, NUM_BOXES, p=share / share.sum()) + 1
    images = rng.integers(NUM_IMAGES, size=NUM_BOXES) + 1
    numbers = rng.uniform(1, 600, (NUM_BOXES, 4 + 2 * points)).round(2)
    with open(path, 'w', encoding='utf-8') as file:
        categories = (
            {'id': i, 'name': f'class_{i}'} for i in range(1, NUM_CLASSES + 1)
        )
        image_entries = (
            {
                'id': i,
                'file_name': f'{i:012}.jpg',
                'width': 640,
                'height': 480,
                'neg_category_ids': [],
                'not_exhaustive_category_ids': [],
            }
            for i in range(1, NUM_IMAGES + 1)
        )
        boxes = (
            {
                'id': i,
                'image_id': image,
                'category_id': label,
                'bbox': values[:4],
                'area': values[2] * values[3],
                'segmentation': [values[4:]],
            }
            for i, (image, label, values) in enumerate(
                zip(
                    images.tolist(),
                    labels.tolist(),
                    map(np.ndarray.tolist, numbers),
                    strict=True,
                ),
                1,
            )
        )
        file.writelines(
            chain(
                section('{"categories": [', categories),
                section('], "images": [', image_entries),
                section('], "annotations": [', boxes),
                [']}'],
            )
        )


def section(opening: str, entries: Iterator[dict]) -> Iterator[str]:
    """Give a JSON list of one entry a line, without its end."""
    separator = opening
    for entry in entries:
        yield separator + json.dumps(entry)
        separator = ',\n'


if __name__ == '__main__':
    main()

"""Measure the metric inside an Evaluator against mmdet's LVISMetric.

Generates a federated set with the classes of LVIS v1 and hands 300 detections
an image to each metric, as the Runner does, in a process of its own::

    python tools/benchmarks/metric.py
    python tools/benchmarks/metric.py --iou-type segm --images 500
    python tools/benchmarks/metric.py --images 19809 --only fast

Time is that of collecting, converting, evaluating, grouping, and for ours of
the table of classes. With masks, most of it goes into encoding the dense masks
that mmdet hands over, which is the same for all: it is shown beside. Memory is
the peak above what is used when the annotations are loaded and nothing is
evaluated yet.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from mmdet.structures.mask import encode_mask_results
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from rich.console import Console
from rich.table import Table

from mmdet_longtail.cli.options import command_parser
from mmdet_longtail.compat import import_lvis
from mmdet_longtail.evaluation.metrics import (
    FixedAPMetric,
    FrequencyGroupMetric,
)
from mmdet_longtail.structures.class_statistics import ClassStatistics

NUM_CLASSES = 1203
OBJECTS = 12  # an image of LVIS v1 has 12.7
DETECTIONS = 300
SUBJECTS = ('mmdet', 'reference', 'fast', 'fixed-ap')


def federated_set(num_images: int, height: int, width: int) -> dict:
    """Make images with random objects of geometrically rarer classes."""
    random = np.random.default_rng(0)
    ids = np.arange(1, NUM_CLASSES + 1)
    share = 0.995**ids / (0.995**ids).sum()
    images: list[dict] = []
    annotations: list[dict] = []
    for image in range(1, num_images + 1):
        classes = random.choice(ids, OBJECTS, p=share)
        absent = np.setdiff1d(random.choice(ids, 10), classes)
        images.append(
            {
                'id': image,
                'file_name': f'{image}.jpg',
                'height': height,
                'width': width,
                'neg_category_ids': absent.tolist(),
                'not_exhaustive_category_ids': classes[:1].tolist(),
            }
        )
        corner = random.uniform(0, 0.7, (OBJECTS, 2)) * [width, height]
        size = random.uniform(0.05, 0.3, (OBJECTS, 2)) * [width, height]
        boxes = zip(corner.tolist(), size.tolist(), strict=True)
        for category, ((x, y), (w, h)) in zip(classes.tolist(), boxes):
            annotations.append(
                {
                    'id': len(annotations) + 1,
                    'image_id': image,
                    'category_id': category,
                    'bbox': [x, y, w, h],
                    'area': w * h,
                    'segmentation': [[x, y, x + w, y, x + w, y + h, x, y + h]],
                }
            )
    letters = ['f', 'c', 'r']
    categories = [
        {
            'id': int(id),
            'name': f'class {id}',
            'frequency': letters[3 * (id - 1) // NUM_CLASSES],
        }
        for id in ids
    ]
    return {
        'images': images,
        'annotations': annotations,
        'categories': categories,
    }


def predictions(dataset: dict, with_masks: bool) -> Iterator[dict]:
    """Detect the objects of each image, badly, over and over again."""
    random = np.random.default_rng(1)
    boxes = np.array([a['bbox'] for a in dataset['annotations']])
    labels = np.array([a['category_id'] for a in dataset['annotations']]) - 1
    for number, image in enumerate(dataset['images']):
        rows = number * OBJECTS + random.integers(0, OBJECTS, DETECTIONS)
        box = boxes[rows] + random.normal(0, 6, (DETECTIONS, 4))
        box[:, 2:] = box[:, :2] + box[:, 2:].clip(2)
        is_right = random.random(DETECTIONS) < 0.5
        label = np.where(
            is_right, labels[rows], random.integers(0, NUM_CLASSES, DETECTIONS)
        )
        instances = {
            'bboxes': torch.tensor(box, dtype=torch.float32),
            'scores': torch.tensor(
                random.random(DETECTIONS), dtype=torch.float32
            ),
            'labels': torch.tensor(label),
        }
        if with_masks:
            y, x = np.ogrid[: image['height'], : image['width']]
            x1, y1, x2, y2 = box.T[:, :, None, None]
            inside = (x >= x1) & (x < x2) & (y >= y1) & (y < y2)
            instances['masks'] = torch.from_numpy(inside)
        yield {
            'img_id': image['id'],
            'ori_shape': (image['height'], image['width']),
            'pred_instances': instances,
        }


def statistics_of(dataset: dict) -> ClassStatistics:
    """Counts that make a third of the classes frequent, common and rare."""
    counts = {'f': 500, 'c': 50, 'r': 5}
    image_count = np.array(
        [counts[c['frequency']] for c in dataset['categories']]
    )
    return ClassStatistics(
        class_names=tuple(c['name'] for c in dataset['categories']),
        image_count=image_count,
        instance_count=image_count,
        num_images=100_000,
        num_annotated_images=100_000,
    )


def status(key: str) -> int:
    """One figure of this process in bytes, by the kernel."""
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith(f'{key}:'):
            return 1024 * int(line.split()[1])
    raise KeyError(key)


def measure(subject: str, path: str, iou_type: str) -> dict:
    """Evaluate in this process."""
    MMLogger.get_instance('benchmark', log_level='ERROR')
    dataset = json.loads(Path(path).read_text())
    if subject == 'mmdet':
        import_lvis()  # the name np.float in it, which numpy 2 lacks
        from mmdet.evaluation import LVISMetric

        metric = LVISMetric(path, metric=iou_type)
    elif subject == 'fixed-ap':
        metric = FixedAPMetric(ann_file=path, metric=iou_type)
    else:
        metric = FrequencyGroupMetric(
            path,
            metric=iou_type,
            back_end=subject,
            per_class_file=f'{path}.{subject}.csv',
        )
    evaluator = Evaluator(metric)
    evaluator.dataset_meta = {
        'classes': tuple(c['name'] for c in dataset['categories'])
    }
    if subject != 'mmdet':
        metric.set_class_statistics(statistics_of(dataset))
    Path('/proc/self/clear_refs').write_text('5')  # forget the peak so far
    before = status('VmRSS')
    seconds = encoding = 0.0
    for sample in predictions(dataset, iou_type == 'segm'):
        masks = sample['pred_instances'].get('masks')
        if masks is not None:
            start = time.process_time()
            encode_mask_results(masks.numpy())
            encoding += time.process_time() - start
        start = time.process_time()
        evaluator.process([sample])
        seconds += time.process_time() - start
    start = time.process_time()
    metrics = evaluator.evaluate(len(dataset['images']))
    seconds += time.process_time() - start
    peak = (status('VmHWM') - before) / 2**30
    ap = next(v for k, v in metrics.items() if k.endswith(f'{iou_type}_AP'))
    return {
        'seconds': seconds,
        'encoding': encoding,
        'peak_GiB': peak,
        'AP': float(ap),
    }


def beyond(row: dict) -> float:
    """Seconds without the encoding of masks."""
    return row['seconds'] - row['encoding']


def main() -> None:
    """Generate, measure and print a table."""
    parser = command_parser(__doc__)
    parser.add_argument('--images', type=int, default=2000)
    parser.add_argument('--size', type=int, nargs=2, default=(640, 480))
    parser.add_argument('--iou-type', choices=['bbox', 'segm'], default='bbox')
    parser.add_argument('--only', nargs='+', choices=SUBJECTS)
    parser.add_argument('--json', type=Path, help='write the figures here')
    parser.add_argument('--measure', nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        subject, path = args.measure
        print(json.dumps(measure(subject, path, args.iou_type)))
        return
    width, height = args.size
    result = {}
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'val.json')
        dataset = federated_set(args.images, height, width)
        path.write_text(json.dumps(dataset))
        for subject in args.only or SUBJECTS:
            with console.status(subject):
                command = [sys.executable, __file__, '--iou-type']
                command += [args.iou_type, '--measure', subject, str(path)]
                out = subprocess.run(
                    command, stdout=subprocess.PIPE, text=True, check=True
                ).stdout
            result[subject] = json.loads(out.splitlines()[-1])
    table = Table(
        title=f'{args.images} images x {DETECTIONS} detections, '
        f'{NUM_CLASSES} classes, {args.iou_type}'
    )
    for column in (
        'metric',
        'CPU s',
        'of it encoding',
        'peak GiB',
        'AP',
        'faster',
        'without encoding',
        'memory',
    ):
        table.add_column(column)
    first = next(iter(result.values()))
    for name, row in result.items():
        table.add_row(
            name,
            f'{row["seconds"]:.2f}',
            f'{row["encoding"]:.2f}',
            f'{row["peak_GiB"]:.2f}',
            f'{row["AP"]:.4f}',
            f'{first["seconds"] / row["seconds"]:.1f} x',
            f'{beyond(first) / beyond(row):.1f} x',
            f'{row["peak_GiB"] / first["peak_GiB"]:.2f} x',
        )
    Console().print(table)
    if args.json is not None:
        args.json.write_text(json.dumps(result, indent=1) + '\n')


if __name__ == '__main__':
    main()

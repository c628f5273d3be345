"""Measure the metric inside an Evaluator against mmdet's LVISMetric.

Generates a federated set with the classes of LVIS v1 and hands 300 detections
per image to each metric, as the Runner does, in a process of its own::

    python tools/benchmarks/metric.py
    python tools/benchmarks/metric.py --iou-type segm --images 500
    python tools/benchmarks/metric.py --images 19809 --only fast

Time is that of collecting, converting, evaluating, grouping, and for ours of
the table of classes. Masks are dense and of the size of the image, as mmdet's
heads hand them over. Memory is the peak above what is used when the
annotations are loaded and nothing is evaluated yet.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.evaluation import LVISMetric
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from timing import (
    NAMES,
    NUM_CLASSES,
    OBJECTS,
    benchmark_parser,
    cpu_seconds,
    in_fresh_process,
    memory,
    show,
    write_federated_set,
)

from mmdet_longtail.compat import import_lvis
from mmdet_longtail.evaluation import metrics
from mmdet_longtail.utils.fileio import read_json

DETECTIONS = 300
SUBJECTS = ('mmdet', 'reference', 'fast', 'fixed-ap')


def predictions(dataset: dict, with_masks: bool) -> Iterator[dict]:
    """Detect the objects of each image, badly, over and over again."""
    random = np.random.default_rng(1)
    boxes = np.array([a['bbox'] for a in dataset['annotations']])
    labels = np.array([a['category_id'] for a in dataset['annotations']]) - 1
    for number, image in enumerate(dataset['images']):
        rows = number * OBJECTS + random.integers(0, OBJECTS, DETECTIONS)
        box = boxes[rows] + random.normal(0, 6, (DETECTIONS, 4))
        # No mask is empty: mmdet's metric counts empty masks, ours drops them.
        last = image['width'] - 2, image['height'] - 2
        box[:, :2] = box[:, :2].clip(0, last)
        box[:, 2:] = box[:, :2] + box[:, 2:].clip(2)
        is_right = random.random(DETECTIONS) < 0.5
        others = random.integers(0, NUM_CLASSES, DETECTIONS)
        instances = {
            'bboxes': torch.tensor(box, dtype=torch.float32),
            'scores': torch.tensor(random.random(DETECTIONS)).float(),
            'labels': torch.tensor(np.where(is_right, labels[rows], others)),
        }
        shape = image['height'], image['width']
        if with_masks:
            y, x = np.ogrid[: shape[0], : shape[1]]
            x1, y1, x2, y2 = box.T[:, :, None, None]
            inside = (x >= x1) & (x < x2) & (y >= y1) & (y < y2)
            instances['masks'] = torch.from_numpy(inside)
        sample = {'img_id': image['id'], 'ori_shape': shape}
        yield sample | {'pred_instances': instances}


def make_metric(subject: str, **options: Any) -> Any:
    """Build a metric that has read its files."""
    if subject == 'mmdet':
        import_lvis()  # The name np.float in it, which numpy 2 lacks.
        return LVISMetric(**options)
    options['train_ann_file'] = path = options['ann_file']
    if subject == 'fixed-ap':
        metric = metrics.FixedAPMetric(**options)
    else:
        metric = metrics.FrequencyGroupMetric(
            back_end=subject, per_class_file=f'{path}.csv', **options
        )
    metric.training_statistics()
    return metric


def measure(subject: str, path: str, iou_type: str) -> dict[str, Any]:
    """Evaluate in this process."""
    MMLogger.get_instance('benchmark', log_level='ERROR')
    dataset = read_json(path)
    evaluator = Evaluator(make_metric(subject, ann_file=path, metric=iou_type))
    evaluator.dataset_meta = {'classes': NAMES}
    Path('/proc/self/clear_refs').write_text('5')  # Forget the peak so far.
    before = memory('VmRSS')
    seconds = 0.0
    for sample in predictions(dataset, iou_type == 'segm'):
        seconds += cpu_seconds(evaluator.process, [sample])[0]
    size = len(dataset['images'])
    last, values = cpu_seconds(evaluator.evaluate, size)
    return {
        'metric': subject,
        'CPU s': seconds + last,
        'peak GiB': (memory('VmHWM') - before) / 2**30,
        'AP': next(
            float(value)
            for key, value in values.items()
            if key.endswith(f'{iou_type}_AP')
        ),
    }


def main() -> None:
    parser = benchmark_parser(
        __doc__,
        images=(2000, 'images of the set'),
        size=([640, 480], 'width and height of the images'),
    )
    parser.add_argument('--iou-type', choices=['bbox', 'segm'], default='bbox')
    parser.add_argument(
        '--only', nargs='+', choices=SUBJECTS, default=SUBJECTS
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = f'{folder}/val.json'
        write_federated_set(path, args.images, args.size)
        rows = [
            in_fresh_process(measure, subject, path, args.iou_type)
            for subject in args.only
        ]
    for row in rows:
        row['x faster'] = rows[0]['CPU s'] / row['CPU s']
        row['x memory'] = row['peak GiB'] / rows[0]['peak GiB']
    title = f'{args.images} images x {DETECTIONS} detections, {args.iou_type}'
    show(title, rows, args.json)


if __name__ == '__main__':
    main()

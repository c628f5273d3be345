"""Measure the metric inside an Evaluator against mmdet's LVISMetric.

Generates a federated set with the classes of LVIS v1 and hands 300 detections
per image to each metric, as the Runner does, in a process of its own::

    python tools/benchmarks/metric.py
    python tools/benchmarks/metric.py --iou-type segm --images 500
    python tools/benchmarks/metric.py --images 19809 --only fast

Time is that of collecting, converting, evaluating, grouping, and for ours of
the table of classes. With masks, most of the time goes into encoding the dense
masks that mmdet hands over. Encoding is the same for all and shown beside.
Memory is the peak above what is used when the annotations are loaded and
nothing is evaluated yet.
"""

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.evaluation import LVISMetric
from mmdet.structures.mask import encode_mask_results
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from timing import benchmark_parser, in_fresh_process, memory, show

from mmdet_longtail.compat import import_lvis
from mmdet_longtail.evaluation import metrics

NUM_CLASSES = 1203
NAMES = tuple(f'class {k}' for k in range(NUM_CLASSES))
OBJECTS = 12  # an image of LVIS v1 has 12.7
DETECTIONS = 300
SUBJECTS = ('mmdet', 'reference', 'fast', 'fixed-ap')


def federated_set(num_images: int, width: int, height: int) -> dict:
    """Generate images with random objects of geometrically rarer classes."""
    random = np.random.default_rng(0)
    share = 0.995 ** np.arange(NUM_CLASSES)
    shape = num_images, OBJECTS
    category = 1 + random.choice(NUM_CLASSES, shape, p=share / share.sum())
    corner = random.uniform(0, 0.7, (*shape, 2)) * [width, height]
    extent = random.uniform(0.05, 0.3, (*shape, 2)) * [width, height]
    boxes = np.concatenate([corner, extent], 2).reshape(-1, 4)
    dataset: dict = {'images': [], 'annotations': []}
    for k, own in enumerate(category):
        absent = np.setdiff1d(random.choice(NUM_CLASSES, 10) + 1, own)
        image = dict(id=k, height=height, width=width)
        image['neg_category_ids'] = absent.tolist()
        image['not_exhaustive_category_ids'] = own[:1].tolist()
        dataset['images'].append(image)
    for k, (x, y, w, h) in enumerate(boxes.tolist()):
        annotation = dict(id=k + 1, image_id=k // OBJECTS, area=w * h)
        annotation['category_id'] = int(category.flat[k])
        annotation['bbox'] = [x, y, w, h]
        polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
        annotation['segmentation'] = [polygon]
        dataset['annotations'].append(annotation)
    dataset['categories'] = [
        dict(id=k + 1, name=name, frequency='fcr'[3 * k // NUM_CLASSES])
        for k, name in enumerate(NAMES)
    ]
    return dataset


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


def measure(subject: str, path: str, iou_type: str) -> dict[str, float]:
    """Evaluate in this process."""
    MMLogger.get_instance('benchmark', log_level='ERROR')
    dataset = json.loads(Path(path).read_text())
    options: dict[str, Any] = dict(ann_file=path, metric=iou_type)
    if subject == 'mmdet':
        import_lvis()  # the name np.float in it, which numpy 2 lacks
        metric = LVISMetric(**options)
    elif subject == 'fixed-ap':
        metric = metrics.FixedAPMetric(train_ann_file=path, **options)
    else:
        options |= dict(back_end=subject, per_class_file=f'{path}.csv')
        metric = metrics.FrequencyGroupMetric(train_ann_file=path, **options)
    if subject != 'mmdet':
        metric.training_statistics()  # are not measured
    evaluator = Evaluator(metric)
    evaluator.dataset_meta = {'classes': NAMES}
    Path('/proc/self/clear_refs').write_text('5')  # forget the peak so far
    before = memory('VmRSS')
    seconds = encoding = 0.0
    for sample in predictions(dataset, iou_type == 'segm'):
        start = time.process_time()
        if iou_type == 'segm':
            encode_mask_results(sample['pred_instances']['masks'].numpy())
        middle = time.process_time()
        evaluator.process([sample])
        encoding += middle - start
        seconds += time.process_time() - middle
    start = time.process_time()
    values = evaluator.evaluate(len(dataset['images']))
    seconds += time.process_time() - start
    peak = (memory('VmHWM') - before) / 2**30
    ap = next(v for k, v in values.items() if k.endswith(f'{iou_type}_AP'))
    figures = dict(seconds=seconds, encoding=encoding, peak_GiB=peak)
    return figures | {'AP': float(ap)}


def main() -> None:
    """Generate, measure and print a table."""
    parser = benchmark_parser(__doc__, images=(2000, 'images of the set'))
    parser.add_argument('--size', type=int, nargs=2, default=(640, 480))
    parser.add_argument('--iou-type', choices=['bbox', 'segm'], default='bbox')
    parser.add_argument('--only', nargs='+', choices=SUBJECTS)
    args = parser.parse_args()
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        path = f'{folder}/val.json'
        dataset = federated_set(args.images, *args.size)
        Path(path).write_text(json.dumps(dataset))
        for subject in args.only or SUBJECTS:
            result[subject] = in_fresh_process(
                measure, subject, path, args.iou_type
            )
    first = next(iter(result.values()))
    rows = []
    for name, row in result.items():
        beyond = [r['seconds'] - r['encoding'] for r in (first, row)]
        rows.append(
            {
                'metric': name,
                'CPU s': f'{row["seconds"]:.2f}',
                'of it encoding': f'{row["encoding"]:.2f}',
                'peak GiB': f'{row["peak_GiB"]:.2f}',
                'AP': f'{row["AP"]:.4f}',
                'faster': f'{first["seconds"] / row["seconds"]:.1f} x',
                'without encoding': f'{beyond[0] / beyond[1]:.1f} x',
                'memory': f'{row["peak_GiB"] / first["peak_GiB"]:.2f} x',
            }
        )
    title = f'{args.images} images x {DETECTIONS} detections, {args.iou_type}'
    show(title, rows, result, args.json)


if __name__ == '__main__':
    main()

"""Validation sets with detections of them, and evaluation as in a test."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from pycocotools import mask as mask_utils

from mmdet_longtail.evaluation.functional import (
    Detections,
    EvaluationSpec,
    GroundTruth,
)
from mmdet_longtail.structures.class_statistics import ClassStatistics

SHARED_DATA = Path(__file__).parents[3] / 'shared' / 'data'
LVIS_DATA = SHARED_DATA / 'lvis'


def federated_dataset(seed, num_images=40, num_classes=72, with_masks=False):
    """A federated set: a third of the classes rare, common, frequent each.

    Category ids have gaps and are not in the order of the file; every tenth
    class has no instance.
    """
    rng = np.random.default_rng(seed)
    size = 160
    letters = 'rcf'
    image_counts = {'r': (0, 11), 'c': (11, 101), 'f': (101, 5000)}
    category_ids = rng.permutation(np.arange(1, 3 * num_classes, 3))
    categories = []
    for label, category_id in enumerate(category_ids.tolist()):
        letter = letters[label % 3]
        image_count = int(rng.integers(*image_counts[letter]))
        categories.append(
            {
                'id': category_id,
                'name': f'class {label}',
                'frequency': letter,
                'image_count': image_count,
                'instance_count': image_count * int(rng.integers(1, 4)),
            }
        )
    present = [c['id'] for k, c in enumerate(categories) if k % 10]
    images: list[dict] = []
    annotations: list[dict] = []
    for number in range(num_images):
        # Each class with instances has some, whatever the draw.
        positives = set(present[number::num_images])
        positives |= set(rng.choice(present, 3).tolist())
        others = [c['id'] for c in categories if c['id'] not in positives]
        images.append(
            {
                'id': 1000 - 7 * number,
                'height': size,
                'width': size,
                'file_name': f'{number}.jpg',
                'neg_category_ids': rng.permutation(others)[:5].tolist(),
                'not_exhaustive_category_ids': rng.choice(
                    sorted(positives), 1
                ).tolist(),
            }
        )
        for category_id in sorted(positives):
            for _ in range(rng.integers(1, 4)):
                w, h = rng.integers(8, 120, 2).tolist()
                x = int(rng.integers(0, size - w))
                y = int(rng.integers(0, size - h))
                corners = [x, y, x + w, y, x + w, y + h, x, y + h]
                annotations.append(
                    {
                        'id': len(annotations) + 1,
                        'image_id': images[-1]['id'],
                        'category_id': category_id,
                        'bbox': [x, y, w, h],
                        'area': w * h,
                    }
                )
                if with_masks:
                    annotations[-1]['segmentation'] = [corners]
    return {
        'images': images,
        'annotations': annotations,
        'categories': categories,
    }


def coco_dataset(seed, **kwargs):
    """An exhaustively annotated set with crowds."""
    rng = np.random.default_rng(seed)
    dataset = federated_dataset(seed, **kwargs)
    for image in dataset['images']:
        del image['neg_category_ids'], image['not_exhaustive_category_ids']
    for annotation in dataset['annotations']:
        annotation['iscrowd'] = int(rng.random() < 0.1)
    return dataset


def statistics_of(dataset):
    """The training counts that the categories of a generated set carry."""
    categories = dataset['categories']
    return ClassStatistics(
        class_names=tuple(c['name'] for c in categories),
        image_count=np.array([c['image_count'] for c in categories]),
        instance_count=np.array([c['instance_count'] for c in categories]),
        num_images=5000,
        num_annotated_images=max(c['image_count'] for c in categories),
    )


def write_json(path, content):
    path.write_text(json.dumps(content))
    return str(path)


def perturbed(dataset, seed, with_masks=False):
    """Detections made of the ground truth.

    Jittered, missed, doubled, and of wrong classes, most of which the image
    was not checked for; more than 300 in one image.

    Returns one dict per image: boxes as corners (n, 4), scores (n,),
    category ids (n,), and masks (n, height, width).
    """
    rng = np.random.default_rng(seed)
    category_ids = [category['id'] for category in dataset['categories']]
    annotations_of: dict = {image['id']: [] for image in dataset['images']}
    for annotation in dataset['annotations']:
        annotations_of[annotation['image_id']].append(annotation)
    detections = []
    for number, image in enumerate(dataset['images']):
        boxes, categories = [], []
        annotations = annotations_of[image['id']]
        copies = 1 if number else 320 // max(len(annotations), 1) + 1
        for annotation in annotations * copies:
            x, y, w, h = annotation['bbox']
            jitter = rng.normal(0, 0.06, 4) * [w, h, w, h]
            box = np.array([x, y, x + w, y + h]) + jitter
            kind = rng.random()
            if kind < 0.1:
                continue
            boxes.append(box)
            categories.append(annotation['category_id'])
            if kind < 0.3:
                boxes.append(box + 1)
                categories.append(annotation['category_id'])
            if kind > 0.7:
                boxes.append(box)
                categories.append(rng.choice(category_ids))
            if kind > 0.9 and 'neg_category_ids' in image:
                boxes.append(box)
                listed = image['neg_category_ids']
                listed = listed + image['not_exhaustive_category_ids']
                categories.append(rng.choice(listed or category_ids))
        corners = np.array(boxes, np.float32).reshape(-1, 4)
        n = len(corners)
        detection = {
            'image': image,
            'bboxes': corners,
            'scores': rng.random(n).astype(np.float32),
            'category_ids': np.array(categories, int),
        }
        if with_masks:
            masks = np.zeros((n, image['height'], image['width']), bool)
            for mask, (x1, y1, x2, y2) in zip(masks, corners, strict=True):
                rows = slice(max(int(y1), 0), max(int(y2) + 1, 1))
                columns = slice(max(int(x1), 0), max(int(x2) + 1, 1))
                mask[rows, columns] = rng.random() < 0.95
            detection['masks'] = masks
        detections.append(detection)
    return detections


def as_data_samples(dataset, detections):
    """What an mmdet detector hands to a metric."""
    label_of = {c['id']: k for k, c in enumerate(dataset['categories'])}
    samples = []
    for detection in detections:
        labels = [label_of[i] for i in detection['category_ids'].tolist()]
        instances = {
            'bboxes': torch.from_numpy(detection['bboxes']),
            'scores': torch.from_numpy(detection['scores']),
            'labels': torch.tensor(labels, dtype=torch.long),
        }
        if 'masks' in detection:
            instances['masks'] = torch.from_numpy(detection['masks'])
        image = detection['image']
        samples.append(
            {
                'img_id': image['id'],
                'ori_shape': (image['height'], image['width']),
                'pred_instances': instances,
            }
        )
    return samples


def as_results(detections, iou_type):
    """The same in COCO's result format."""
    results = []
    for detection in detections:
        for i, box in enumerate(detection['bboxes']):
            result = {
                'image_id': detection['image']['id'],
                'category_id': int(detection['category_ids'][i]),
                'score': float(detection['scores'][i]),
            }
            if iou_type == 'bbox':
                x1, y1, x2, y2 = box.tolist()
                result['bbox'] = [x1, y1, x2 - x1, y2 - y1]
            else:
                mask = np.asfortranarray(detection['masks'][i], np.uint8)
                result['segmentation'] = mask_utils.encode(mask)
            results.append(result)
    return results


def make_spec(tmp_path, dataset, detections, iou_type='bbox'):
    """What tools read: a ground truth and detections of it."""
    iou_types = ['bbox', 'segm'] if iou_type == 'segm' else ['bbox']
    path = write_json(tmp_path / 'val.json', dataset)
    ground_truth = GroundTruth.load(path, iou_types)
    results = as_results(detections, iou_type)
    for result in results:
        counts = result.get('segmentation', {}).get('counts')
        if counts is not None:
            result['segmentation']['counts'] = counts.decode()
    found = Detections.from_results(results, ground_truth, iou_type, 'test')
    return EvaluationSpec(ground_truth, found)


def run(metric, dataset, detections, statistics=None, batch=7):
    """Evaluate as a test loop does."""
    evaluator = Evaluator(metric)
    evaluator.dataset_meta = {
        'classes': tuple(c['name'] for c in dataset['categories'])
    }
    if statistics is not None:
        metric.set_class_statistics(statistics)
    samples = as_data_samples(dataset, detections)
    for start in range(0, len(samples), batch):
        evaluator.process(samples[start : start + batch])
    return evaluator.evaluate(len(samples))


def lvis_val_100():
    ann_file = LVIS_DATA / 'lvis_val_100.json'
    if not ann_file.exists():
        pytest.skip('no ../shared/data')
    counts = json.loads(
        (LVIS_DATA / 'lvis_v0.5_train_counts.json').read_text()
    )
    statistics = ClassStatistics(
        class_names=tuple(counts['name']),
        image_count=counts['image_count'],
        instance_count=counts['instance_count'],
        num_images=counts['num_images'],
        num_annotated_images=counts['num_annotated_images'],
    )
    return str(ann_file), json.loads(ann_file.read_text()), statistics

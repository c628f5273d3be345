"""A small set in the format of the Open Images Challenge."""

import mmengine
import numpy as np
import torch
from mmdet.registry import DATASETS
from mmdet.structures import DetDataSample
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from mmdet_longtail.structures.class_statistics import ClassStatistics

C = 7
NAMES = tuple(f'class {c}' for c in range(C))
META = ('img_id', 'instances', 'image_level_labels')
# Class 1 is the parent of class 2; class 6 is not in the validation set.
PARENT, CHILD, ABSENT = 1, 2, 6


def statistics_of(image_count, names=None):
    image_count = np.array(image_count)
    return ClassStatistics(
        class_names=names or tuple(map(str, range(len(image_count)))),
        image_count=image_count,
        instance_count=3 * image_count,
        num_images=image_count.sum(),
        num_annotated_images=image_count.max(),
    )


STATISTICS = statistics_of([5, 90, 40, 7, 300, 90, 12], NAMES)


def make_challenge_set(folder, num_images=16, seed=0):
    """Write a set in the challenge's format, and give mmdet's dataset."""
    rng = np.random.default_rng(seed)
    boxes, labels, metas, image_labels = [], [], [], ['ImageID,Label,Conf']
    for c in range(C):
        labels.append(f'/m/{c},{NAMES[c]},{c + 1}')
    for image in range(num_images):
        classes = rng.choice(C - 1, rng.integers(1, 5))  # never the last
        boxes += [f'val/{image}.jpg', '0', str(len(classes))]
        for c in classes:
            x, y = rng.uniform(0, 0.5, 2)
            w, h = rng.uniform(0.1, 0.5, 2)
            group_of = int(rng.random() < 0.2)
            boxes.append(f'{c + 1} {x} {y} {x + w} {y + h} {group_of}')
        metas.append({'filename': f'{image}.jpg', 'ori_shape': (80, 100, 3)})
        absent = rng.integers(C)
        image_labels.append(f'{image},/m/{absent},0')
    tree = np.eye(C + 1)
    tree[CHILD + 1, PARENT + 1] = 1
    (folder / 'boxes.txt').write_text('\n'.join(boxes) + '\n')
    (folder / 'labels.csv').write_text('\n'.join(labels) + '\n')
    (folder / 'image_labels.csv').write_text('\n'.join(image_labels) + '\n')
    mmengine.dump(metas, folder / 'metas.pkl')
    np.save(folder / 'tree.npy', tree)
    init_default_scope('mmdet')
    return DATASETS.build(
        dict(
            type='OpenImagesChallengeDataset',
            data_root=str(folder) + '/',
            ann_file='boxes.txt',
            data_prefix=dict(img=''),
            label_file='labels.csv',
            hierarchy_file='tree.npy',
            meta_file='metas.pkl',
            image_level_ann_file='image_labels.csv',
            test_mode=True,
            pipeline=[
                dict(type='LoadAnnotations', with_bbox=True),
                dict(type='mmdet.PackDetInputs', meta_keys=META),
            ],
        )
    )


def detect(dataset, seed=0):
    """Noisy detections of every image, as the metric gets them."""
    rng = np.random.default_rng(seed)
    samples = []
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        found = [
            (np.array(i['bbox']) + rng.normal(0, 4, 4), i['bbox_label'])
            for i in info['instances']
            for _ in range(2)
        ]
        found += [(rng.uniform(0, 80, 4), rng.integers(C)) for _ in range(10)]
        sample = DetDataSample(
            metainfo={
                'img_id': info['img_id'],
                'instances': info['instances'],
                'image_level_labels': info['image_level_labels'],
            }
        )
        sample.pred_instances = InstanceData(
            bboxes=torch.tensor(
                np.array([box for box, _ in found]), dtype=torch.float32
            ),
            labels=torch.tensor([label for _, label in found]),
            scores=torch.tensor(rng.random(len(found))),
        )
        samples.append(sample.to_dict())
    return samples


def evaluate(metric, dataset, samples):
    metric.dataset_meta = dataset.metainfo
    metric.process({}, samples)
    return metric.evaluate(len(samples))

"""Train softmax EQL on long-tailed handwritten digits, over its gamma.

The data are scikit-learn's digits, 8 x 8 pixels. A random seed selects 120,
76, 48, ... 2 of the first 120 images per class for training; all later images
are the test set. Gamma 0 is plain softmax. The table has the mean and the
standard deviation over the seeds, in percent.
"""

import tempfile
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain.datasets import BaseDataset
from mmpretrain.registry import DATASETS
from rich.progress import track
from sklearn.datasets import load_digits
from timing import benchmark_parser, show

import mmdet_longtail.classification  # noqa: F401
from mmdet_longtail.classification.datasets import (
    exponential_image_count,
    select_images,
)

LARGEST = 120
IMAGE_COUNT = exponential_image_count(10, LARGEST, 60)
MANY_ABOVE = 40
FEW_BELOW = 10
COLUMNS = ('top1', 'many', 'medium', 'few')


@DATASETS.register_module()
class DigitsLT(BaseDataset):
    """Long-tailed training images (8, 8, 1), or a balanced test set.

    Args:
        split (str): 'train' or 'test'.
        selection_seed (int): Random seed of the selected training images.
    """

    METAINFO = {'classes': tuple(map(str, range(10)))}

    def __init__(self, split: str, selection_seed: int = 0) -> None:
        self.split = split
        self.selection_seed = selection_seed
        super().__init__(ann_file='', pipeline=[dict(type='PackInputs')])

    def load_data_list(self) -> list[dict[str, Any]]:
        images, labels = load_digits(return_X_y=True)
        # The number of images of the same class before each image.
        rank = (labels[:, None] == np.arange(10)).cumsum(0)
        rank = rank[np.arange(len(labels)), labels] - 1
        chosen = np.flatnonzero((rank < LARGEST) == (self.split == 'train'))
        if self.split == 'train':
            chosen = chosen[
                select_images(labels[chosen], IMAGE_COUNT, self.selection_seed)
            ]
        images = images.reshape(-1, 8, 8, 1).astype(np.float32)
        return [{'img': images[i], 'gt_label': int(labels[i])} for i in chosen]


CONFIG = """
default_scope = 'mmpretrain'
log_level = 'ERROR'
default_hooks = dict(
    checkpoint=None,
    class_statistics=dict(type='mmdet.ClassStatisticsHook'))
model = dict(
    type='ImageClassifier',
    backbone=dict(type='CIFARResNet32', in_channels=1),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=64))
data_preprocessor = dict(num_classes=10, mean=[4.9], std=[6.0])
train_dataloader = dict(
    batch_size=64, num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(type='DigitsLT', split='train'))
val_dataloader = dict(
    batch_size=256, num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='DigitsLT', split='test'))
val_evaluator = [dict(type='Accuracy'), dict(type='ShotAccuracy')]
train_cfg = dict(by_epoch=False)
val_cfg = dict()
optim_wrapper = dict(optimizer=dict(
    type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4, nesterov=True))
param_scheduler = dict(type='MultiStepLR', by_epoch=False)
"""


def measure(gamma: float, seed: int, iterations: int) -> list[float]:
    """Train once and return the accuracies in percent."""
    config = Config.fromstring(CONFIG, '.py')
    config.experiment_name = f'digits_{gamma}_{seed}'
    config.randomness = dict(seed=seed)
    config.train_dataloader.dataset.selection_seed = seed
    config.val_evaluator[1].update(many_above=MANY_ABOVE, few_below=FEW_BELOW)
    config.train_cfg.update(max_iters=iterations, val_interval=iterations + 1)
    config.param_scheduler.milestones = [iterations // 2, iterations * 3 // 4]
    config.model.head.loss = dict(type='CrossEntropyLoss')
    if gamma > 0:
        config.model.head.loss = dict(
            type='mmdet.SoftmaxEqualizationClassificationLoss',
            num_classes=10,
            frequency_threshold=float(FEW_BELOW / IMAGE_COUNT.sum()),
            ignore_probability=gamma,
        )
    with tempfile.TemporaryDirectory() as config.work_dir:
        runner = Runner.from_cfg(config)
        runner.train()
        metrics = runner.val()
    return [metrics[f'accuracy/{name}'] for name in COLUMNS]


def main() -> None:
    args = benchmark_parser(
        __doc__,
        iterations=(200, 'iterations per training'),
        gammas=([0, 0.5, 0.75, 0.9, 0.95], 'probabilities, 0 is softmax'),
        seeds=([0, 1, 2], 'random seeds'),
    ).parse_args()
    runs = [(gamma, seed) for seed in args.seeds for gamma in args.gammas]
    found: dict[float, list[list[float]]] = {g: [] for g in args.gammas}
    for gamma, seed in track(runs, 'training'):
        found[gamma].append(measure(gamma, seed, args.iterations))
    rows = []
    for gamma, values in found.items():
        means, deviations = np.mean(values, axis=0), np.std(values, axis=0)
        cells = [f'{m:.1f} ± {s:.1f}' for m, s in zip(means, deviations)]
        rows.append({'gamma': gamma} | dict(zip(COLUMNS, cells)))
    show(f'{args.iterations} iterations', rows, args.json)


if __name__ == '__main__':
    main()

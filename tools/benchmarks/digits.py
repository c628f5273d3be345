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
IMBALANCE = 60
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
        # How many images of the same class come before each image.
        rank = np.zeros_like(labels)
        for label in range(10):
            of_class = labels == label
            rank[of_class] = np.arange(of_class.sum())
        chosen = np.flatnonzero((rank < LARGEST) == (self.split == 'train'))
        if self.split == 'train':
            image_count = exponential_image_count(10, LARGEST, IMBALANCE)
            chosen = chosen[
                select_images(labels[chosen], image_count, self.selection_seed)
            ]
        return [
            {
                'img': images[i].reshape(8, 8, 1).astype(np.float32),
                'gt_label': int(labels[i]),
            }
            for i in chosen
        ]


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


def make_config(
    gamma: float, seed: int, iterations: int, work_dir: str
) -> Config:
    """Build the config of one training."""
    config = Config.fromstring(CONFIG, '.py')
    config.experiment_name = f'digits_{gamma}_{seed}'
    config.work_dir = work_dir
    config.randomness = dict(seed=seed)
    config.train_dataloader.dataset.selection_seed = seed
    config.val_evaluator[1].update(many_above=MANY_ABOVE, few_below=FEW_BELOW)
    config.train_cfg.update(max_iters=iterations, val_interval=iterations + 1)
    config.param_scheduler.milestones = [iterations // 2, iterations * 3 // 4]
    config.model.head.loss = dict(type='CrossEntropyLoss')
    if gamma > 0:
        num_images = exponential_image_count(10, LARGEST, IMBALANCE).sum()
        config.model.head.loss = dict(
            type='mmdet.SoftmaxEqualizationClassificationLoss',
            num_classes=10,
            frequency_threshold=float(FEW_BELOW / num_images),
            ignore_probability=gamma,
        )
    return config


def measure(gamma: float, seed: int, iterations: int) -> dict[str, float]:
    """Train once and return the accuracies in percent."""
    with tempfile.TemporaryDirectory() as work_dir:
        runner = Runner.from_cfg(
            make_config(gamma, seed, iterations, work_dir)
        )
        runner.train()
        metrics = runner.val()
    return {name: metrics[f'accuracy/{name}'] for name in COLUMNS}


def row_of(gamma: str, runs: list[dict[str, float]]) -> dict[str, str]:
    """Return a row of the table: means and standard deviations."""
    values = np.array([[run[name] for name in COLUMNS] for run in runs])
    columns = zip(COLUMNS, values.mean(axis=0), values.std(axis=0))
    return {'gamma': gamma} | {n: f'{m:.1f} ± {s:.1f}' for n, m, s in columns}


def main() -> None:
    parser = benchmark_parser(
        __doc__, iterations=(200, 'iterations per training')
    )
    parser.add_argument(
        '--gammas',
        type=float,
        nargs='+',
        default=[0, 0.5, 0.75, 0.9, 0.95],
        help='probabilities, 0 is softmax (default: 0 0.5 0.75 0.9 0.95)',
    )
    parser.add_argument(
        '--seeds',
        type=int,
        nargs='+',
        default=[0, 1, 2],
        help='random seeds (default: 0 1 2)',
    )
    args = parser.parse_args()
    figures: dict[str, list[dict[str, float]]] = {
        f'{gamma:g}': [] for gamma in args.gammas
    }
    runs = [(gamma, seed) for seed in args.seeds for gamma in args.gammas]
    for gamma, seed in track(runs, 'training'):
        run = measure(gamma, seed, args.iterations)
        figures[f'{gamma:g}'].append(run)
    rows = [row_of(*item) for item in figures.items()]
    show(f'{args.iterations} iterations', rows, figures, args.json)


if __name__ == '__main__':
    main()

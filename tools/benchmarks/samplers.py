"""Time how samplers and class statistics read the classes of a dataset.

Compared with one pass of ``get_cat_ids``, on a generated dataset like LVIS
v1: 13 boxes per image in 1,203 classes, polygons with 34 corners, stored as
mmengine stores annotations. Counting of the annotation file stands beside
``json.load`` of the file. All run in one process and in turn, so that a slow
moment of the machine affects all of them. Each time is the minimum of some
repeats, in processor seconds::

    python tools/benchmarks/samplers.py
"""

import tempfile
from collections import deque

from mmdet.datasets import CocoDataset
from mmdet.datasets.samplers import ClassAwareSampler
from mmengine.dataset import ClassBalancedDataset
from mmengine.logging import MMLogger
from timing import (
    NAMES,
    Subjects,
    benchmark_parser,
    least_seconds,
    show,
    write_federated_set,
)

from mmdet_longtail.datasets.samplers import (
    ClassAwareImageSampler,
    RepeatFactorSampler,
)
from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.utils.console import quiet
from mmdet_longtail.utils.fileio import read_json

OVERSAMPLE_THR = 1e-3
LATE_EPOCH = 30


def subjects(dataset: CocoDataset) -> Subjects:
    """Return what is timed; the first is one pass of ``get_cat_ids``."""
    path, thr = dataset.ann_file, OVERSAMPLE_THR
    repeating = RepeatFactorSampler(dataset, thr, seed=0)
    class_aware = ClassAwareImageSampler(dataset, seed=0)
    for sampler in repeating, class_aware:
        sampler.set_epoch(LATE_EPOCH)  # A resumed run may start with it.
    late = f', epoch {LATE_EPOCH}'
    images = range(len(dataset))
    return [
        ('get_cat_ids', lambda: [*map(dataset.get_cat_ids, images)]),
        ('RepeatFactorSampler', lambda: RepeatFactorSampler(dataset, thr, 0)),
        ('ClassAwareImageSampler', lambda: ClassAwareImageSampler(dataset, 0)),
        (
            "mmengine's ClassBalancedDataset",
            lambda: ClassBalancedDataset(dataset, thr),
        ),
        ("mmdet's ClassAwareSampler", lambda: ClassAwareSampler(dataset, 0)),
        (f'RepeatFactorSampler{late}', lambda: deque(repeating, 0)),
        (f'ClassAwareImageSampler{late}', lambda: deque(class_aware, 0)),
        ('json.load', lambda: read_json(path)),
        ('counting', lambda: ClassStatistics.from_annotation_file(path)),
    ]


def main() -> None:
    args = benchmark_parser(
        __doc__,
        images=(20_000, 'images of the dataset'),
        repeats=(3, 'measurements of each'),
    ).parse_args()
    MMLogger.get_current_instance().setLevel('WARNING')
    with tempfile.TemporaryDirectory() as folder:
        path = f'{folder}/train.json'
        write_federated_set(path, args.images, (640, 480), corners=34)
        with quiet():
            dataset = CocoDataset(
                ann_file=path,
                metainfo={'classes': NAMES},
                data_prefix={'img': 'images'},
            )
        seconds = least_seconds(subjects(dataset), args.repeats)
    rows = [
        {
            '': name,
            'seconds': value,
            'x a pass': value / seconds['get_cat_ids'],
        }
        for name, value in seconds.items()
    ]
    show(f'{args.images:,} images, {len(NAMES):,} classes', rows, args.json)


if __name__ == '__main__':
    main()

"""What every sampler of this package promises.

The suite takes each class that the package registers in DATA_SAMPLERS. A
sampler with other arguments than dataset and seed gets an entry in OPTIONS or
BUILDERS.
"""

import itertools
import json
import math
import random
from collections import Counter

import numpy as np
import pytest
import torch
from labeled_images import Labels, some_labels
from mmdet.datasets import MultiImageMixDataset
from mmdet.registry import DATA_SAMPLERS, DATASETS
from mmengine.dataset import BaseDataset, ClassBalancedDataset, ConcatDataset
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from ranks import run_on_two_ranks
from torch import nn
from torch.utils.data import TensorDataset

from mmdet_longtail.errors import LongTailError

OPTIONS = {
    'RepeatFactorSampler': dict(oversample_thr=0.3),
    'InstanceAwareRepeatFactorSampler': dict(oversample_thr=0.3),
}
# A batch sampler: it has an image sampler inside.
BUILDERS = {
    'SeededBatchSampler': lambda dataset, seed: dict(
        sampler=build('RepeatFactorSampler', dataset, seed),
        batch_size=4,
        seed=0 if seed is None else seed,
    ),
}
NAMES = sorted(
    name
    for name, kind in DATA_SAMPLERS.module_dict.items()
    if kind.__module__.startswith('mmdet_longtail.')
)
every_sampler = pytest.mark.parametrize('name', NAMES)
image_samplers = pytest.mark.parametrize(
    'name', [name for name in NAMES if name not in BUILDERS]
)


@pytest.fixture(scope='module', autouse=True)
def mmdet_scope():
    init_default_scope('mmdet')


def build(name, dataset, seed=0):
    arguments = dict(dataset=dataset, seed=seed, **OPTIONS.get(name, {}))
    if name in BUILDERS:
        arguments = BUILDERS[name](dataset, seed)
    return DATA_SAMPLERS.build(dict(type=name, **arguments))


def draw(sampler, epoch):
    """Draw the images of an epoch, as many as the sampler's length."""
    # mmengine looks there, too.
    getattr(sampler, 'sampler', sampler).set_epoch(epoch)
    drawn = list(sampler)
    assert len(drawn) == len(sampler)
    if drawn and isinstance(drawn[0], list):
        return [image for batch in drawn for image, _ in batch]
    return drawn


def pretend_ranks(monkeypatch, rank, world_size):
    for module in (
        'mmdet_longtail.datasets.samplers',
        'mmdet.datasets.samplers.class_aware_sampler',
    ):
        monkeypatch.setattr(
            f'{module}.get_dist_info', lambda: (rank, world_size)
        )


def test_the_suite_has_them_all():
    assert set(NAMES) >= {
        'ClassAwareImageSampler',
        'InstanceAwareRepeatFactorSampler',
        'RepeatFactorSampler',
        'SeededBatchSampler',
    }


@every_sampler
def test_images_are_of_the_dataset_and_epochs_equally_long(name):
    dataset = Labels(some_labels())
    sampler = build(name, dataset)
    epochs = [draw(sampler, epoch) for epoch in range(4)]
    assert len({len(epoch) for epoch in epochs}) == 1
    assert {type(image) for epoch in epochs for image in epoch} == {int}
    assert set().union(*epochs) <= set(range(len(dataset)))
    assert len(set(map(tuple, epochs))) == 4


@every_sampler
def test_an_epoch_is_a_function_of_seed_and_number(name):
    dataset = Labels(some_labels())
    sampler = build(name, dataset)
    epochs = [draw(sampler, epoch) for epoch in range(4)]
    for epoch in (3, 0, 2):
        assert draw(build(name, dataset), epoch) == epochs[epoch]
        assert draw(sampler, epoch) == epochs[epoch]
        assert draw(build(name, dataset, 1), epoch) != epochs[epoch]


@every_sampler
def test_global_random_numbers_are_left_alone(name):
    sampler = build(name, Labels(some_labels()))

    def numbers():
        legacy = np.random.rand()  # noqa: NPY002, what mmdet draws from
        return random.random(), legacy, torch.rand(1).item()

    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)
    expected = numbers()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)
    draw(sampler, 1)
    assert numbers() == expected


@every_sampler
@pytest.mark.parametrize('world_size', [2, 7, 130])
def test_ranks_share_an_epoch(name, world_size, monkeypatch):
    """Together they draw what one process does, and a few images more."""
    dataset = Labels(some_labels())
    whole = Counter(draw(build(name, dataset), 0))
    samplers = []
    for rank in range(world_size):
        pretend_ranks(monkeypatch, rank, world_size)
        samplers.append(build(name, dataset))
    parts = [draw(sampler, 0) for sampler in samplers]
    assert len({len(part) for part in parts}) == 1
    together = Counter(itertools.chain.from_iterable(parts))
    assert whole <= together
    assert together.total() - whole.total() < world_size


def _draw_on_rank(rank, folder):
    dataset = Labels(some_labels())
    init_default_scope('mmdet')
    drawn = {}
    for name in NAMES:
        agreed = build(name, dataset, None)
        drawn[name] = [
            getattr(agreed, 'sampler', agreed).seed,
            draw(agreed, 2),
            draw(build(name, dataset, 5), 0),
        ]
    with open(f'{folder}/{rank}.json', 'w') as file:
        json.dump(drawn, file)


def test_two_real_ranks(tmp_path):
    run_on_two_ranks(_draw_on_rank, str(tmp_path))
    ranks = [
        json.loads((tmp_path / f'{rank}.json').read_text()) for rank in (0, 1)
    ]
    for name in NAMES:
        one, other = (rank[name] for rank in ranks)
        assert one[0] == other[0]  # the seed that they agreed on
        assert one[1] != other[1]
        whole = Counter(draw(build(name, Labels(some_labels()), 5), 0))
        together = Counter(one[2] + other[2])
        assert whole <= together
        assert together.total() - whole.total() <= 1


@every_sampler
def test_wrappers_are_opened(name):
    def drawn_from(dataset):
        return [draw(build(name, dataset), epoch) for epoch in range(3)]

    labels = some_labels()
    cut = 20
    flip = dict(type='RandomFlip', prob=0.0)
    for dataset in (
        ConcatDataset([Labels(labels[:cut]), Labels(labels[cut:])]),
        MultiImageMixDataset(Labels(labels), [flip]),
        ClassBalancedDataset(Labels(labels), oversample_thr=0.0),
        DATASETS.build(dict(type='SeededDataset', dataset=Labels(labels))),
    ):
        assert drawn_from(dataset) == drawn_from(Labels(labels))
    parts = [
        dict(type='Labels', classes_of_images=part)
        for part in (labels[:cut], labels[cut:])
    ]
    nested = dict(type='RepeatDataset', times=2, dataset=parts[0])
    nested = dict(type='ConcatDataset', datasets=[nested, parts[1]])
    nested = dict(type='RepeatDataset', times=3, dataset=nested)
    same = Labels((labels[:cut] + labels) * 3)
    assert drawn_from(DATASETS.build(nested)) == drawn_from(same)
    seeded = dict(type='SeededDataset', dataset=DATASETS.build(nested))
    assert drawn_from(DATASETS.build(seeded)) == drawn_from(same)


@image_samplers
def test_aspect_ratio_batches(name):
    sampler = build(name, Labels(some_labels()))
    batches = DATA_SAMPLERS.build(
        dict(type='AspectRatioBatchSampler', sampler=sampler, batch_size=4)
    )
    drawn = list(itertools.chain.from_iterable(batches))
    assert len(batches) == math.ceil(len(sampler) / 4)
    assert sorted(drawn) == sorted(draw(sampler, 0))


class Subset:
    """A wrapper that picks images in a way of its own."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return 3


class WithoutLabels(BaseDataset):
    def load_data_list(self):
        return [{}, {}]


@every_sampler
@pytest.mark.parametrize(
    ('dataset', 'message'),
    [
        (lambda: Labels([[], [], []]), 'Labels: none of its 3 images has'),
        (lambda: Labels([]), 'Labels: none of its 0 images has'),
        (
            lambda: WithoutLabels(serialize_data=False),
            'WithoutLabels does not give the classes',
        ),
        (
            lambda: TensorDataset(torch.zeros(3)),
            'TensorDataset does not give the classes',
        ),
        (
            lambda: Subset(Labels(some_labels())),
            'Subset does not give the classes',
        ),
        (
            lambda: ConcatDataset([WithoutLabels(serialize_data=False)]),
            'WithoutLabels does not give the classes',
        ),
        (
            lambda: ClassBalancedDataset(Labels(some_labels()), 0.5),
            'repeats images by its oversample_thr=0.5',
        ),
    ],
)
def test_datasets_that_cannot_be_sampled(name, dataset, message):
    with pytest.raises(LongTailError, match=message) as caught:
        build(name, dataset())
    assert '\n' not in str(caught.value)


# -- in a runner -------------------------------------------------------------


class Weight(BaseModel):
    """The least that a runner trains."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, img_id, mode, **others):
        return dict(loss=self.weight.sum() * len(img_id))


class Record(Hook):
    """Keeps which images came."""

    def __init__(self):
        self.images = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.images += data_batch['img_id']


def train(work_dir, name, train_cfg, **options):
    record = Record()
    Runner(
        Weight(),
        str(work_dir),
        train_dataloader=dict(
            batch_size=8,
            num_workers=0,
            sampler=dict(type=name, **OPTIONS.get(name, {})),
            dataset=Labels(
                some_labels(),
                pipeline=[lambda image: dict(img_id=image['img_id'])],
            ),
        ),
        train_cfg=train_cfg,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        custom_hooks=[record],
        randomness=dict(seed=4),
        default_scope='mmdet',
        # A second runner of the same name would log into the first one's file.
        experiment_name=f'{name} {work_dir.name}',
        **options,
    ).train()
    return record.images


@image_samplers
def test_resumed_epochs_are_those_of_an_uninterrupted_run(name, tmp_path):
    def run(part, max_epochs, **options):
        return train(
            tmp_path / part,
            name,
            dict(by_epoch=True, max_epochs=max_epochs),
            **options,
        )

    whole = run('whole', 4)
    half = run('half', 2)
    checkpoint = str(tmp_path / 'half' / 'epoch_2.pth')
    resumed = run('resumed', 4, load_from=checkpoint, resume=True)
    assert half + resumed == whole
    sampler = build(name, Labels(some_labels()), 4)
    assert whole == [i for epoch in range(4) for i in draw(sampler, epoch)]
    (log,) = (tmp_path / 'whole').glob('*/*.log')
    lines = [x for x in log.read_text().splitlines() if f'{name}: ' in x]
    assert len(lines) == 1
    times = len(sampler) / 61
    assert (
        f'{name}: an epoch has {len(sampler)} images, {times:.2f} times the '
        "61 of the dataset; most repeated is class 'rare', each of its images "
    ) in lines[0]


@image_samplers
def test_iterations_go_through_the_epochs(name, tmp_path):
    drawn = train(tmp_path / 'whole', name, dict(by_epoch=False, max_iters=12))
    sampler = build(name, Labels(some_labels()), 4)
    assert len(drawn) > len(sampler)
    assert drawn == (draw(sampler, 0) + draw(sampler, 1))[: len(drawn)]

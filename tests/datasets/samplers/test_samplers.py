"""Samplers draw what their papers say, on any ranks, and after a resume."""

import itertools
import json
import math
from collections import Counter

import naive
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.datasets import BaseDetDataset, MultiImageMixDataset
from mmdet.registry import DATA_SAMPLERS, DATASETS
from mmengine.dataset import (
    BaseDataset,
    ClassBalancedDataset,
    ConcatDataset,
)
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from ranks import run_on_two_ranks
from tool_runs import run_tool
from torch import nn
from torch.utils.data import TensorDataset

from mmdet_longtail.datasets.samplers import (
    ClassAwareImageSampler,
    InstanceAwareRepeatFactorSampler,
    RepeatFactorSampler,
)
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.structures.repeat_factor import repeat_factors

NAMES = ('often', 'seldom', 'rare', 'never')
THRESHOLD = 0.3
SAMPLERS = {
    'repeat factor': lambda dataset, **seed: RepeatFactorSampler(
        dataset, THRESHOLD, **seed
    ),
    'instance aware': lambda dataset, **seed: InstanceAwareRepeatFactorSampler(
        dataset, THRESHOLD, **seed
    ),
    'class aware': ClassAwareImageSampler,
}
all_samplers = pytest.mark.parametrize('kind', SAMPLERS)


@DATASETS.register_module()
class Labels(BaseDetDataset):
    """Images of which only the classes are known."""

    METAINFO = dict(classes=NAMES)

    def __init__(self, classes_of_images, **options):
        self.classes_of_images = classes_of_images
        # To serialise collects garbage, which takes longer than a test.
        super().__init__(ann_file='', serialize_data=False, **options)

    def load_data_list(self):
        return [
            {
                'img_id': index,
                'width': 10 + index % 3,
                'height': 11,
                'instances': [{'bbox_label': c} for c in classes],
            }
            for index, classes in enumerate(self.classes_of_images)
        ]


def some_labels():
    """61 images: class 0 in most, class 2 in one, class 3 and 5 in none."""
    labels = [[0, 0, 1] if i % 9 == 0 else [0] for i in range(57)]
    return [*labels, [2, 0], [], [4, 1, 4], [4]]


def epochs(sampler, numbers):
    indices = []
    for epoch in numbers:
        sampler.set_epoch(epoch)
        drawn = list(sampler)
        assert len(drawn) == len(sampler)
        indices += drawn
    return indices


def pretend_ranks(monkeypatch, rank, world_size):
    for module in (
        'mmdet_longtail.datasets.samplers.repeat_factor',
        'mmdet.datasets.samplers.class_aware_sampler',
    ):
        monkeypatch.setattr(
            f'{module}.get_dist_info', lambda: (rank, world_size)
        )


@pytest.fixture(scope='module', autouse=True)
def mmdet_scope():
    init_default_scope('mmdet')


# -- repeat factors ----------------------------------------------------------

images_of_classes = st.lists(
    st.lists(st.integers(0, 5), max_size=4), min_size=1, max_size=15
).filter(any)


@settings(max_examples=60)
@given(images_of_classes, st.floats(1e-3, 1))
def test_repeat_factors_equal_plain_loops(labels, threshold):
    dataset = Labels(labels)
    for sampler, expected in (
        (
            RepeatFactorSampler(dataset, threshold, seed=0),
            naive.repeat_factors(labels, threshold),
        ),
        (
            InstanceAwareRepeatFactorSampler(dataset, threshold, seed=0),
            naive.instance_aware_repeat_factors(labels, threshold),
        ),
    ):
        assert sampler.repeat_factor == pytest.approx(expected)
        assert len(sampler) == pytest.approx(sum(expected), abs=0.5 + 1e-9)


def test_the_class_with_fewer_boxes_is_shown_more():
    """Classes 1 and 2 are in one image each; 1 has nine boxes there."""
    labels = [[0]] * 8 + [[1] * 9, [2]]
    sampler = InstanceAwareRepeatFactorSampler(Labels(labels), 0.3, seed=0)
    f = [math.sqrt(1 / 10 * boxes / 18) for boxes in (9, 1)]
    assert sampler.repeat_factor[8:] == pytest.approx(
        [math.sqrt(0.3 / value) for value in f]
    )
    plain = RepeatFactorSampler(Labels(labels), 0.3, seed=0)
    assert plain.repeat_factor[8] == plain.repeat_factor[9]


def test_repeat_factors_of_classes():
    """t / f(c) = 0.3 / (10, 5, 1 of 10 images)."""
    image_index = np.array([*range(10), 0, 1, 2, 3, 4, 4])
    class_index = np.array([0] * 10 + [1] * 5 + [2])
    f = np.bincount(class_index) / 10
    r_class, r_image = repeat_factors(image_index, class_index, f, 10, 0.3)
    assert r_class == pytest.approx([1, 1, math.sqrt(3)])
    assert r_image == pytest.approx([1] * 4 + [math.sqrt(3)] + [1] * 5)


def test_passes_round_repeat_factors_at_random():
    sampler = RepeatFactorSampler(Labels(some_labels()), THRESHOLD, seed=0)
    r = np.array(naive.repeat_factors(some_labels(), THRESHOLD))
    num_passes = 2000
    counts = np.zeros(len(r))
    for number in range(num_passes):
        count = np.bincount(sampler._draw_pass(number), minlength=len(r))
        assert ((np.floor(r) <= count) & (count <= np.ceil(r))).all()
        assert count.min() >= 1
        counts += count
    fraction = r - np.floor(r)
    sigma = np.sqrt(num_passes * fraction * (1 - fraction))
    assert (abs(counts - num_passes * r) <= 5 * sigma + 1e-6).all()
    assert r.max() > 4 and (sigma > 0).sum() > 5


def test_epochs_are_cut_from_the_stream_of_passes():
    sampler = RepeatFactorSampler(Labels(some_labels()), THRESHOLD, seed=3)
    stream = np.concatenate([sampler._draw_pass(n) for n in range(60)])
    assert len({len(sampler._draw_pass(n)) for n in range(60)}) > 1
    drawn = epochs(sampler, range(50))
    assert drawn == stream[: len(drawn)].tolist()
    # Any epoch by itself, in any order.
    for epoch in (49, 0, 17):
        start = epoch * len(sampler)
        assert epochs(sampler, [epoch]) == drawn[start : start + len(sampler)]


def test_orders_of_passes_and_seeds_differ():
    dataset = Labels([[0]] * 30)
    one, other = (RepeatFactorSampler(dataset, 0.5, seed=s) for s in (0, 1))
    orders = [tuple(s._draw_pass(n)) for s in (one, other) for n in range(5)]
    assert len(set(orders)) == 10
    assert sorted(orders[0]) == list(range(30))


# -- class-aware sampling ----------------------------------------------------


def test_classes_and_their_images_are_drawn_equally_often():
    labels = some_labels()
    sampler = ClassAwareImageSampler(Labels(labels), seed=0)
    assert len(sampler) == len(labels)
    num_epochs = 500
    drawn = Counter(epochs(sampler, range(num_epochs)))
    num_draws = num_epochs * len(labels)
    expected = naive.expected_class_aware_draws(labels, num_draws)
    for index, mean in enumerate(expected):
        sigma = math.sqrt(mean * (1 - mean / num_draws))
        assert abs(drawn[index] - mean) <= 5 * sigma
    assert drawn[58] == 0  # an image without a class


@settings(max_examples=30)
@given(images_of_classes)
def test_each_drawn_image_holds_a_class(labels):
    sampler = ClassAwareImageSampler(Labels(labels), seed=0)
    drawn = epochs(sampler, range(3))
    assert len(drawn) == 3 * len(labels)
    assert all(labels[index] for index in drawn)


# -- both --------------------------------------------------------------------


@all_samplers
def test_wrappers_are_opened(kind):
    def drawn_from(dataset):
        return epochs(SAMPLERS[kind](dataset, seed=0), range(3))

    labels = some_labels()
    cut = 20
    flip = dict(type='RandomFlip', prob=0.0)
    for dataset in (
        ConcatDataset([Labels(labels[:cut]), Labels(labels[cut:])]),
        MultiImageMixDataset(Labels(labels), [flip]),
        ClassBalancedDataset(Labels(labels), oversample_thr=0.0),
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


@all_samplers
@pytest.mark.parametrize('world_size', [2, 7, 130])
def test_ranks_share_an_epoch(kind, world_size, monkeypatch):
    dataset = Labels(some_labels())
    whole = SAMPLERS[kind](dataset, seed=0)
    of_ranks = []
    for rank in range(world_size):
        pretend_ranks(monkeypatch, rank, world_size)
        of_ranks.append(SAMPLERS[kind](dataset, seed=0))
    assert {len(s) for s in of_ranks} == {math.ceil(len(whole) / world_size)}
    drawn = [epochs(sampler, range(4)) for sampler in of_ranks]
    if kind != 'class aware':
        together = list(itertools.chain.from_iterable(zip(*drawn)))
        numbers = range(1 + len(together) // len(whole))
        assert together == epochs(whole, numbers)[: len(together)]
        return
    length = len(of_ranks[0])
    for epoch in range(4):
        parts = [own[epoch * length : (epoch + 1) * length] for own in drawn]
        together = list(itertools.chain.from_iterable(parts))
        common = min(len(whole), len(together))
        assert together[:common] == epochs(whole, [epoch])[:common]


def _draw_on_rank(rank, folder):
    dataset = Labels(some_labels())
    drawn = {
        kind: [
            sampler.seed,
            epochs(make(dataset, seed=5), range(3)),
            epochs(sampler, [2]),
        ]
        for kind, make in SAMPLERS.items()
        for sampler in [make(dataset)]
    }
    with open(f'{folder}/{rank}.json', 'w') as file:
        json.dump(drawn, file)


def test_two_real_ranks(tmp_path):
    run_on_two_ranks(_draw_on_rank, str(tmp_path))
    ranks = [
        json.loads((tmp_path / f'{rank}.json').read_text()) for rank in (0, 1)
    ]
    dataset = Labels(some_labels())
    one, other = (rank['repeat factor'] for rank in ranks)
    whole = epochs(RepeatFactorSampler(dataset, THRESHOLD, 5), range(4))
    together = list(itertools.chain.from_iterable(zip(one[1], other[1])))
    assert together == whole[: len(together)]
    one, other = (rank['class aware'] for rank in ranks)
    half = 31  # of 61 images
    together = one[1][:half] + other[1][:half]
    whole = epochs(ClassAwareImageSampler(dataset, 5), [0])
    assert together[: len(whole)] == whole
    for kind in SAMPLERS:
        one, other = (rank[kind] for rank in ranks)
        assert one[0] == other[0]  # the seed that they agreed on
        assert one[2] != other[2]


@all_samplers
def test_aspect_ratio_batches(kind):
    sampler = SAMPLERS[kind](Labels(some_labels()), seed=0)
    batches = DATA_SAMPLERS.build(
        dict(type='AspectRatioBatchSampler', sampler=sampler, batch_size=4)
    )
    drawn = list(itertools.chain.from_iterable(batches))
    assert len(batches) == math.ceil(len(sampler) / 4)
    assert sorted(drawn) == sorted(epochs(sampler, [0]))


@pytest.mark.parametrize(
    'kind', [RepeatFactorSampler, InstanceAwareRepeatFactorSampler]
)
@pytest.mark.parametrize('threshold', [0, -0.1, 1.1, math.nan, '0.001', None])
def test_threshold_out_of_range(threshold, kind):
    message = f'^{kind.__name__}: oversample_thr is'
    with pytest.raises(LongTailError, match=message) as caught:
        kind(Labels(some_labels()), threshold)
    assert '\n' not in str(caught.value)


class Subset:
    """A wrapper that picks images in a way of its own."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return 3


class WithoutLabels(BaseDataset):
    def load_data_list(self):
        return [{}, {}]


@all_samplers
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
def test_datasets_that_cannot_be_sampled(kind, dataset, message):
    with pytest.raises(LongTailError, match=message) as caught:
        SAMPLERS[kind](dataset())
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


CONFIGS = {
    'repeat factor': dict(type='RepeatFactorSampler', oversample_thr=0.3),
    'instance aware': dict(
        type='InstanceAwareRepeatFactorSampler', oversample_thr=0.3
    ),
    'class aware': dict(type='ClassAwareImageSampler'),
}


def train(work_dir, kind, train_cfg, **options):
    record = Record()
    Runner(
        Weight(),
        str(work_dir),
        train_dataloader=dict(
            batch_size=8,
            num_workers=0,
            sampler=CONFIGS[kind],
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
        experiment_name=f'{kind} {work_dir.name}',
        **options,
    ).train()
    return record.images


@all_samplers
def test_resumed_epochs_are_those_of_an_uninterrupted_run(kind, tmp_path):
    def run(name, max_epochs, **options):
        return train(
            tmp_path / name,
            kind,
            dict(by_epoch=True, max_epochs=max_epochs),
            **options,
        )

    whole = run('whole', 4)
    half = run('half', 2)
    checkpoint = str(tmp_path / 'half' / 'epoch_2.pth')
    resumed = run('resumed', 4, load_from=checkpoint, resume=True)
    assert half + resumed == whole
    sampler = SAMPLERS[kind](Labels(some_labels()), seed=4)
    assert whole == epochs(sampler, range(4))
    (log,) = (tmp_path / 'whole').glob('*/*.log')
    name = type(sampler).__name__
    lines = [x for x in log.read_text().splitlines() if f'{name}: ' in x]
    assert len(lines) == 1
    times = len(sampler) / 61
    assert (
        f'{name}: an epoch has {len(sampler)} images, {times:.2f} times the '
        "61 of the dataset; most repeated is class 'rare', each of its images "
    ) in lines[0]


@all_samplers
def test_iterations_go_through_the_epochs(kind, tmp_path):
    drawn = train(tmp_path / 'whole', kind, dict(by_epoch=False, max_iters=12))
    sampler = SAMPLERS[kind](Labels(some_labels()), seed=4)
    assert len(drawn) > len(sampler)
    assert drawn == epochs(sampler, range(2))[: len(drawn)]


# -- the benchmark -----------------------------------------------------------


def test_benchmark(tmp_path):
    path = tmp_path / 'figures.json'
    run_tool(
        'benchmarks/samplers.py',
        *('--images', 60, '--repeats', 1, '--json', path),
        cwd=tmp_path,
    )
    figures = json.loads(path.read_text())
    assert {'a pass of get_cat_ids', 'RepeatFactorSampler'} < set(figures)

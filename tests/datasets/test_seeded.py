import pytest
from mmengine.dataset import DefaultSampler, InfiniteSampler

from mmdet_longtail.datasets import SeededBatchSampler
from mmdet_longtail.errors import LongTailError


class _Images(list):
    metainfo = dict(classes=('a',))


def test_batches_go_on_from_any_of_them():
    def batches(batch=0, iteration=0):
        sampler = DefaultSampler(_Images(range(10)), shuffle=True, seed=0)
        sampled = SeededBatchSampler(sampler, 3, seed=5)
        sampled.start_at(batch, iteration)
        return list(sampled)

    whole = batches()
    assert len(whole) == 4
    assert len({words for batch in whole for _, words in batch}) == 10
    assert batches(2, 2) == whole[2:]
    assert batches(4, 4) == []


def test_samplers_that_do_not_repeat_are_refused():
    sampler = InfiniteSampler(_Images(range(1000)), seed=0)
    with pytest.raises(LongTailError, match='InfiniteSampler gives other'):
        SeededBatchSampler(sampler, 2, seed=0).check_repeatable()

"""The words of a seed determine what all three libraries draw."""

import random

import numpy as np
import torch

from mmdet_longtail.utils.seeding import seed_all


def draw(*words):
    seed_all(*words)
    return (
        random.random(),
        np.random.random(),  # noqa: NPY002
        torch.rand(1).item(),
    )


def test_seeds_depend_on_each_word():
    assert draw(0, 1, 2) == draw(0, 1, 2)
    others = [draw(*words) for words in ((0, 1, 2), (1, 1, 2), (0, 1, 3))]
    for values in zip(*others):
        assert len({*values}) == 3
    assert len({*draw(0, 1, 2)}) == 3

"""Random numbers that are a function of where a run is."""

import random

import numpy as np
import torch


def seed_all(*words: int) -> None:
    """Seed python, numpy and torch from words, each 0 or more."""
    # The words are mixed, so that neighbors have nothing in common.
    seeds = np.random.SeedSequence(words).generate_state(3)
    random.seed(int(seeds[0]))
    np.random.seed(seeds[1])  # noqa: NPY002, what mmdet's transforms use
    torch.manual_seed(int(seeds[2]))

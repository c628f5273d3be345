"""Classes are drawn equally often, and so are their images."""

import math
from collections import Counter

import naive
from hypothesis import given, settings
from hypothesis import strategies as st
from labeled_images import Labels, some_labels

from mmdet_longtail.datasets.samplers import (
    ClassAwareImageSampler,
)

THRESHOLD = 0.3


def epochs(sampler, numbers):
    indices = []
    for epoch in numbers:
        sampler.set_epoch(epoch)
        indices += sampler
    return indices


images_of_classes = st.lists(
    st.lists(st.integers(0, 5), max_size=4), min_size=1, max_size=15
).filter(any)


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

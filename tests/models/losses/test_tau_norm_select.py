"""tau-norm, and its choice between the scores of trained and even rows."""

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import softmax

from mmdet_longtail.models.losses import TauNormSelectLoss, tau_norm_scale
from mmdet_longtail.structures.class_statistics import ClassStatistics

seeds = st.integers(0, 2**16)


def randn(*shape, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(
        *shape, generator=generator, dtype=torch.float64
    )


@given(seed=seeds, tau=st.floats(0, 4), as_published=st.booleans())
@settings(max_examples=30, deadline=None)
def test_tau_norm_scale_is_the_naive_loop(seed, tau, as_published):
    rows = randn(6, 3, seed=seed)
    lengths = [math.sqrt(sum(x * x for x in row)) for row in rows.tolist()]
    m = 1.0 if as_published else sum(lengths) / len(lengths)
    expected = [(m / length) ** tau for length in lengths]
    found = tau_norm_scale(rows, tau, as_published)
    torch.testing.assert_close(found, torch.tensor(expected).double())


def test_tau_norm_limits():
    rows = randn(5, 3)
    assert (tau_norm_scale(rows, 0) == 1).all()
    m = rows.norm(dim=1).mean()
    even = (rows * tau_norm_scale(rows, 1)[:, None]).norm(dim=1)
    torch.testing.assert_close(even, m.expand(5))
    unit = (rows * tau_norm_scale(rows, 1, True)[:, None]).norm(dim=1)
    torch.testing.assert_close(unit, torch.ones(5).double())
    rows[2] = 0
    assert tau_norm_scale(rows, 1)[2] == 1


def naive_select(z, s, b, is_tail):
    num_classes = len(s)
    scaled = [(z[c] - b[c]) * s[c] + b[c] for c in range(num_classes)]
    scaled.append(z[-1])
    own = max(range(num_classes + 1), key=lambda c: z[c])
    other = max(range(num_classes + 1), key=lambda c: scaled[c])
    is_replaced = own < num_classes and other < num_classes and is_tail[other]
    return softmax(scaled if is_replaced else z), is_replaced


def test_select_is_the_naive_loop():
    instance_count = np.array([500, 99, 100, 3, 0])
    loss = TauNormSelectLoss(num_classes=5, fewer_than=100)
    loss.set_class_statistics(
        ClassStatistics(
            tuple('abcde'), np.minimum(instance_count, 90), instance_count,
            num_images=90, num_annotated_images=90,
        )
    )  # fmt: skip
    s, b = randn(5, seed=1).exp(), randn(5, seed=2)
    loss.scale.copy_(s)
    loss.bias.copy_(b)
    s, b = loss.scale.tolist(), loss.bias.tolist()
    z = randn(300, 6, seed=3, scale=2.0)
    is_tail = [False, True, False, True, True]
    rows = [naive_select(row, s, b, is_tail) for row in z.tolist()]
    expected = torch.tensor([probs for probs, _ in rows]).double()
    torch.testing.assert_close(loss.get_activation(z), expected)
    num_replaced = sum(is_replaced for _, is_replaced in rows)
    assert 30 < num_replaced < 270  # Both cases were there.
    fresh = TauNormSelectLoss(num_classes=5)
    fresh.load_state_dict(loss.state_dict())
    torch.testing.assert_close(fresh.get_activation(z), expected)

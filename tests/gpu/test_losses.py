"""Every registered loss, against itself in float64 on the CPU."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
from loss_cases import CASES, build
from loss_contract import labels_of, scores_of, total

ROWS = 64


def inputs_of(loss, scale):
    """Scores, labels and label weights, on the CPU."""
    scores = scores_of(loss, ROWS, scale=1.0, dtype=torch.float32)
    if scale == 1e4:
        scores = scores.sign()
    weights = torch.linspace(0.5, 1.5, ROWS)
    return scale * scores, labels_of(loss, ROWS), weights


def step(loss, scores, labels, weights):
    """The loss, its gradient at the scores, and the activation."""
    scores = scores.detach().requires_grad_()
    value = total(loss(scores, labels, weights, avg_factor=float(ROWS)))
    value.backward()
    with torch.no_grad():
        return value.detach(), scores.grad, loss.get_activation(scores)


def on(device, *tensors):
    return [tensor.to(device) for tensor in tensors]


def assert_near(found, expected, tolerance):
    """Compare with float64 on the CPU, NaN being near to nothing."""
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(
            one.cpu().double(), other, rtol=tolerance, atol=tolerance
        )


@contextmanager
def no_host_sync():
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode('error')
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode('default')


@pytest.mark.parametrize('scale', [1.0, 5.0, 1e4])
@pytest.mark.parametrize('name', CASES)
def test_float32_equals_float64(name, scale, device):
    loss = build(name)
    scores, *rest = inputs_of(loss, scale)
    expected = step(loss, scores.double(), *rest)
    found = step(build(name).to(device), *on(device, scores, *rest))
    assert_near(found, expected, 1e-5)


@pytest.mark.parametrize('scale', [1.0, 1e4])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('name', CASES)
def test_autocast_equals_float64(name, dtype, scale, device):
    """With the classifier, whose product is what autocast rounds."""
    loss = build(name)
    target, labels, weights = inputs_of(loss, scale)
    # One feature per row, so that a product is a rounded score.
    features = torch.eye(ROWS)
    expected = step(loss, target.double(), labels, weights)
    weight, *moved = on(device, target, features, labels, weights)
    weight.requires_grad_()
    with torch.autocast(device, dtype):
        loss.to(device)
        scores = moved[0] @ weight
        assert scores.dtype == dtype
        value = total(loss(scores, *moved[1:], avg_factor=float(ROWS)))
        probs = loss.get_activation(scores)
    value.backward()
    assert value.dtype == torch.float32
    assert_near((value, weight.grad, probs), expected, 2e-2)


@pytest.mark.parametrize('name', CASES)
def test_no_host_sync(name, cuda):
    loss = build(name).to(cuda)
    inputs = on(cuda, *inputs_of(loss, 1.0))
    step(loss, *inputs)  # CUDA's libraries sync when they are loaded
    with no_host_sync():
        step(loss, *inputs)
        loss.get_accuracy(*inputs[:2])


def test_a_host_sync_is_an_error(cuda):
    with pytest.raises(RuntimeError, match='synchroniz'), no_host_sync():
        torch.ones(3, device=cuda).sum().item()


@pytest.mark.parametrize('name', CASES)
def test_compiles_to_one_graph(name, device):
    # The CPU needs minutes for what this back end leaves out.
    back_end = 'inductor' if device == 'cuda' else 'aot_eager'
    loss = build(name).to(device)
    inputs = on(device, *inputs_of(loss, 1.0))
    expected = step(build(name).to(device), *inputs)
    torch.compiler.reset()
    compiled = torch.compile(loss, fullgraph=True, backend=back_end)
    scores = inputs[0].requires_grad_()
    value = total(compiled(*inputs, avg_factor=float(ROWS)))
    value.backward()
    activation = torch.compile(
        loss.get_activation, fullgraph=True, backend=back_end
    )
    with torch.no_grad():
        found = value.detach(), scores.grad, activation(scores)
    assert_near(found, [x.cpu().double() for x in expected], 1e-5)


@pytest.mark.parametrize('name', CASES)
def test_deterministic_algorithms(name, device):
    losses = [build(name).to(device) for _ in range(2)]
    inputs = on(device, *inputs_of(losses[0], 1.0))
    torch.use_deterministic_algorithms(True)
    try:
        first, second = (step(loss, *inputs) for loss in losses)
    finally:
        torch.use_deterministic_algorithms(False)
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize('name', CASES)
def test_state_follows_the_device(name, device):
    """All tensors are buffers, before and after a state is loaded."""
    loss, saved = build(name).to(device), build(name).state_dict()
    loss.load_state_dict(saved)
    assert not any(isinstance(v, torch.Tensor) for v in vars(loss).values())
    for buffer in loss.buffers():
        assert buffer.device.type == device
    for key, value in loss.state_dict().items():
        assert torch.equal(value.cpu(), saved[key])

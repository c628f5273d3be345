"""The mask loss learns from the objects that have a mask."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from masks import (
    build_mask_detector,
    first_batch,
    make_mask_data,
    read,
    without_masks,
    write,
)
from mmengine.registry import init_default_scope


@pytest.fixture(scope='module', autouse=True)
def mmdet_scope():
    init_default_scope('mmdet')


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return make_mask_data(tmp_path_factory.mktemp('data') / 'data')


@pytest.fixture(scope='module')
def detector(data):
    return build_mask_detector(data)


def losses_of(detector, batch):
    """Losses, what the mask loss was given, and what its head was given."""
    torch.manual_seed(0)
    model = copy.deepcopy(detector).train()
    given, sampled = [], []
    head = model.roi_head.mask_head
    head.loss_mask.register_forward_hook(
        lambda module, inputs, output: given.extend(inputs)
    )

    def loss_and_target(mask_preds, sampling_results, *args):
        sampled.extend(sampling_results)
        return type(head).loss_and_target(
            head, mask_preds, sampling_results, *args
        )

    head.loss_and_target = lambda **kwargs: loss_and_target(*kwargs.values())
    batch = model.data_preprocessor(copy.deepcopy(batch), training=True)
    losses = model.forward(**batch, mode='loss')
    total, _ = model.parse_losses(losses)
    total.backward()
    return losses, given, sampled, model


def test_only_objects_with_masks_make_mask_loss(data, detector):
    """Equal to mmdet's head, row by row, on the rows that have a mask."""
    content = read(data / 'train.json')
    write(data / 'some.json', without_masks(content, [0, 2]))
    full, (logits, targets, labels), sampled, _ = losses_of(
        detector, first_batch(data, 'train.json')
    )
    some, (kept_logits, kept_targets, kept_labels), _, _ = losses_of(
        detector, first_batch(data, 'some.json')
    )
    # Masks change neither the proposals nor what they are assigned to.
    assert some['loss_cls'] == full['loss_cls']
    assert some['loss_bbox'] == full['loss_bbox']
    has_mask = [
        image != 0 or index not in (0, 2)
        for image, sampling in enumerate(sampled)
        for index in sampling.pos_assigned_gt_inds.tolist()
    ]
    assert len(has_mask) == len(logits) and 0 < sum(has_mask) < len(has_mask)
    assert torch.equal(kept_logits, logits[has_mask])
    assert torch.equal(kept_targets, targets[has_mask])
    assert torch.equal(kept_labels, labels[has_mask])
    expected = np.mean(
        [
            F.binary_cross_entropy_with_logits(row[label], target).item()
            for row, target, label, kept in zip(
                logits, targets, labels, has_mask
            )
            if kept
        ]
    )
    assert some['loss_mask'].item() == pytest.approx(expected, rel=1e-5)


def test_without_any_mask_the_loss_is_zero_and_has_a_gradient(data, detector):
    content = read(data / 'train.json')
    everything = range(len(content['annotations']))
    write(data / 'boxes.json', without_masks(content, everything))
    losses, _, _, model = losses_of(detector, first_batch(data, 'boxes.json'))
    assert losses['loss_mask'] == 0
    assert losses['loss_bbox'] > 0
    for parameter in model.roi_head.mask_head.parameters():
        assert (parameter.grad == 0).all()

"""The contract that every loss fulfils, as tests of any set of losses.

A test module makes a class of the contract for its losses::

    class TestContract(LossContract):
        cases = {'MyLoss': Case(reference, dict(some_setting=1))}
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from ranks import run_on_two_ranks
from torch import nn

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.structures import ClassStatistics

INSTANCE_COUNT = [5, 2000, 0, 60, 400, 9, 150, 31, 1, 30]
C = len(INSTANCE_COUNT)
LVIS = Path(__file__).parents[3] / 'shared/data/lvis'


@dataclass(frozen=True)
class Case:
    """A loss in the contract.

    Args:
        reference (Callable): Naive loop (loss, scores, labels) -> list of N
            row losses, summed over terms, of scores and labels as lists.
        settings (dict): Arguments of the loss, without randomness.
        has_equal_rows (bool): Whether the mean is over all rows alike.
            Defaults to True.
        gradient_settings (dict): Changes of the settings, of a loss with
            factors that are constants of its gradient, that leave them out.
        online_state (Callable, optional): A state (loss, counts of the
            classes) -> buffers by name, of a loss that has one.
    """

    reference: Callable[[Any, list, list], list[float]]
    settings: dict[str, Any] = field(default_factory=dict)
    has_equal_rows: bool = True
    gradient_settings: dict[str, Any] = field(default_factory=dict)
    online_state: Callable[[Any, torch.Tensor], dict] | None = None

    def prepare(self, loss, instance_count=INSTANCE_COUNT):
        """Set the online state of a loss."""
        if self.online_state is not None:
            count = torch.tensor(instance_count).double()
            loss.set_online_state(self.online_state(loss, count))


def statistics_of(instance_count, num_images=1000):
    instance_count = np.array(instance_count)
    image_count = np.minimum(instance_count, num_images - 400)
    return ClassStatistics(
        class_names=tuple(f'class_{c}' for c in range(len(instance_count))),
        image_count=image_count,
        instance_count=instance_count,
        num_images=num_images,
        num_annotated_images=int(image_count.max()),
    )


def lvis_counts(version):
    """Training boxes per class of an LVIS version."""
    path = LVIS / f'lvis_{version}_train_counts.json'
    if not path.exists():
        pytest.skip(f'{path} is absent')
    return json.loads(path.read_text())['instance_count']


def follows_from(loss, statistics):
    """Whether the buffers of a loss are those that statistics give."""
    fresh = copy.deepcopy(loss)
    fresh.set_class_statistics(statistics)
    state = fresh.state_dict()
    return loss.has_class_statistics and all(
        torch.equal(value, state[name])
        for name, value in loss.state_dict().items()
    )


def scores_of(loss, num_rows, seed=0, scale=2.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    width = loss.get_cls_channels(loss.num_classes)
    return scale * torch.randn(
        num_rows, width, generator=generator, dtype=dtype
    )


def labels_of(loss, num_rows, seed=0):
    """Half background, and every class once when there are rows enough."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2 * C, (num_rows,), generator=generator)
    labels[:C] = torch.arange(C)[:num_rows]
    return foreground_only(loss, labels.clamp(max=C))


def foreground_only(loss, labels):
    """Map background to a class where a loss has no background."""
    return labels % C if loss.column_blocks == ('classes',) else labels


def assert_is_sigmoid_cross_entropy(loss):
    """Compare a loss of C columns with torch's, gradients too."""
    scores, labels = scores_of(loss, 20).requires_grad_(), labels_of(loss, 20)
    one_hot = nn.functional.one_hot(labels, C + 1)[:, :C].double()
    plain = nn.functional.binary_cross_entropy_with_logits(
        scores, one_hot, reduction='sum'
    )
    values = loss(scores, labels), plain / 20
    torch.testing.assert_close(*values)
    gradients = (torch.autograd.grad(value, scores)[0] for value in values)
    torch.testing.assert_close(*gradients)


def total(value):
    return sum(value.values()) if isinstance(value, dict) else value


class LossContract:
    """Tests of the losses in ``cases``."""

    cases: dict[str, Case] = {}

    def pytest_generate_tests(self, metafunc):
        if 'name' in metafunc.fixturenames:
            metafunc.parametrize('name', self.cases)

    @classmethod
    def bare(cls, name, **changes):
        """The loss before its statistics; its online state stays."""
        config = dict(type=name, num_classes=C, **cls.cases[name].settings)
        loss = MODELS.build(config | changes).eval()
        cls.cases[name].prepare(loss)
        return loss

    @classmethod
    def build(cls, name, statistics=None, **changes):
        loss = cls.bare(name, **changes)
        statistics = statistics or statistics_of(INSTANCE_COUNT)
        loss.set_class_statistics(statistics)
        cls.cases[name].prepare(loss, statistics.instance_count)
        return loss

    def reference(self, name, loss, scores, labels):
        rows = self.cases[name].reference(
            loss, scores.tolist(), labels.tolist()
        )
        return torch.tensor(rows, dtype=torch.float64)

    @given(seed=st.integers(0, 2**16), scale=st.sampled_from([0.1, 3.0, 1e4]))
    @settings(
        max_examples=20,
        deadline=None,
        suppress_health_check=[HealthCheck.differing_executors],
    )
    def test_rows_equal_the_naive_loop(self, name, seed, scale):
        loss = self.build(name)
        scores, labels = (
            scores_of(loss, 14, seed, scale),
            labels_of(loss, 14, seed),
        )
        value = total(loss(scores, labels, reduction_override='none'))
        expected = self.reference(name, loss, scores, labels)
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)

    def test_extreme_logits_equal_the_naive_loop_in_float32(self, name):
        loss = self.build(name)
        scores = scores_of(loss, 20, scale=1.0, dtype=torch.float32)
        scores, labels = scores.sign() * 1e4, labels_of(loss, 20)
        value = total(loss(scores, labels, reduction_override='none'))
        expected = self.reference(name, loss, scores, labels).float()
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-3)

    def test_gradient(self, name):
        loss = self.build(name, **self.cases[name].gradient_settings)
        scores = scores_of(loss, 12).requires_grad_()
        labels = labels_of(loss, 12)
        weights = torch.linspace(0, 2, 12, dtype=torch.float64)
        assert torch.autograd.gradcheck(
            lambda x: total(loss(x, labels, weights, avg_factor=7.0)), scores
        )

    def test_backward_twice_gives_the_same_gradient(self, name):
        loss = self.build(name)
        scores = scores_of(loss, 12).requires_grad_()
        value = total(loss(scores, labels_of(loss, 12)))
        (first,) = torch.autograd.grad(value, scores, retain_graph=True)
        (second,) = torch.autograd.grad(value, scores)
        torch.testing.assert_close(first, second, rtol=0, atol=0)

    def test_second_derivative_is_right_or_an_error(self, name):
        loss = self.build(name, **self.cases[name].gradient_settings)
        scores = scores_of(loss, 6).requires_grad_()
        labels = labels_of(loss, 6)
        try:
            assert torch.autograd.gradgradcheck(
                lambda x: total(loss(x, labels)), scores
            )
        except LongTailError as error:
            assert 'create_graph' in str(error)

    def test_permuting_the_classes_permutes_the_result(self, name):
        order = torch.randperm(C, generator=torch.Generator().manual_seed(3))
        loss = self.build(name)
        permuted = self.build(
            name, statistics_of([INSTANCE_COUNT[c] for c in order.tolist()])
        )
        scores, labels = scores_of(loss, 20), labels_of(loss, 20)
        rest = torch.arange(C, scores.size(1))
        new_scores = scores[:, torch.cat([order, rest])]
        new_labels = torch.cat([order.argsort(), torch.tensor([C])])[labels]
        torch.testing.assert_close(
            total(permuted(new_scores, new_labels)),
            total(loss(scores, labels)),
        )
        torch.testing.assert_close(
            permuted.get_activation(new_scores)[:, :C],
            loss.get_activation(scores)[:, order],
        )

    @pytest.mark.parametrize(
        'labels',
        [
            pytest.param([], id='no rows'),
            pytest.param([C] * 6, id='all background'),
            pytest.param([0, 1, 3, 4], id='all foreground'),
            pytest.param([2, 2, C], id='class without training instances'),
        ],
    )
    @pytest.mark.parametrize('scale', [1.0, 1e4])
    @pytest.mark.parametrize(
        'dtype', [torch.float32, torch.float16, torch.bfloat16]
    )
    def test_edge_batches_are_finite(self, name, labels, scale, dtype):
        loss = self.build(name)
        scores = scores_of(loss, len(labels), scale=1.0).clamp(-1, 1)
        scores = (scale * scores).to(dtype).requires_grad_()
        labels = foreground_only(loss, torch.tensor(labels).long())
        value = total(loss(scores, labels))
        value.backward()
        assert value.dtype == torch.float32
        assert value.isfinite() and scores.grad.isfinite().all()
        probs = loss.get_activation(scores)
        assert probs.isfinite().all()
        assert (probs >= 0).all() and (probs <= 1).all()

    def test_reduction(self, name):
        loss = self.build(name)
        scores, labels = scores_of(loss, 16), labels_of(loss, 16)
        rows = total(loss(scores, labels, reduction_override='none'))
        assert rows.shape == (16,)
        torch.testing.assert_close(
            total(loss(scores, labels, reduction_override='sum')), rows.sum()
        )
        value = total(loss(scores, labels))
        if self.cases[name].has_equal_rows:
            torch.testing.assert_close(value, rows.sum() / 16)
        doubled = self.build(name, loss_weight=2.0)
        torch.testing.assert_close(total(doubled(scores, labels)), 2 * value)
        for avg_factor in (5.0, torch.tensor(5.0)):
            divided = total(loss(scores, labels, avg_factor=avg_factor))
            expected = value if loss.normalizer == 'own' else rows.sum() / 5
            torch.testing.assert_close(divided, expected, check_dtype=False)
        with pytest.raises(LongTailError, match='reduction_override'):
            loss(scores, labels, reduction_override='average')

    def test_rows_of_weight_zero_do_not_count(self, name):
        loss = self.build(name)
        scores, labels = scores_of(loss, 30), labels_of(loss, 30)
        keep = torch.arange(30) % 3 != 0
        number = keep.sum().item()
        value = total(loss(scores, labels, keep.double(), avg_factor=number))
        kept = loss(scores[keep], labels[keep], avg_factor=number)
        torch.testing.assert_close(value, total(kept))

    def test_the_mean_is_over_all_rows_whatever_they_weigh(self, name):
        loss = self.build(name)
        if not self.cases[name].has_equal_rows or loss.normalizer == 'own':
            pytest.skip('a term divides by its own rows')
        scores, labels = scores_of(loss, 16), labels_of(loss, 16)
        weights = torch.arange(16).double() % 4
        rows = total(loss(scores, labels, reduction_override='none'))
        torch.testing.assert_close(
            total(loss(scores, labels, weights)), (weights * rows).sum() / 16
        )

    @pytest.mark.parametrize('num_classes', [None, '4', 2.0, 0, -1, []])
    def test_number_of_classes_is_validated(self, name, num_classes):
        with pytest.raises(LongTailError, match='num_classes'):
            self.bare(name, num_classes=num_classes)

    def test_without_statistics(self, name):
        """Training and predicting need them and raise, or do not change."""
        bare, full = self.bare(name), self.build(name)
        scores, labels = scores_of(bare, 8), labels_of(bare, 8)
        for call, is_needed in (
            (lambda x: total(x(scores, labels)), bare.needs_class_statistics),
            (
                lambda x: x.get_activation(scores),
                bare.predicts_with_class_statistics,
            ),
        ):
            if is_needed:
                with pytest.raises(LongTailError, match='ClassStatisticsHook'):
                    call(bare)
            else:
                torch.testing.assert_close(call(bare), call(full))

    def test_state_dict_round_trip(self, name):
        loss, fresh = self.build(name), self.bare(name)
        scores, labels = scores_of(loss, 8), labels_of(loss, 8)
        assert not {'image_count', 'num_images'} & loss.state_dict().keys()
        fresh.load_state_dict(loss.state_dict())
        torch.testing.assert_close(
            total(fresh(scores, labels)), total(loss(scores, labels))
        )
        torch.testing.assert_close(
            fresh.get_activation(scores), loss.get_activation(scores)
        )
        # A state that was saved before the statistics came brings none.
        fresh = self.bare(name)
        fresh.load_state_dict(self.bare(name).state_dict())
        assert not fresh.has_class_statistics

    def test_mmdet_head_scores_with_get_activation(self, name):
        if not MODELS.get(name).custom_cls_channels:
            pytest.skip('its heads bring their own channels and activation')
        config = dict(type=name, num_classes=C, **self.cases[name].settings)
        head = bbox_head(config)
        head.loss_cls.set_class_statistics(statistics_of(INSTANCE_COUNT))
        assert head.fc_cls.out_features == head.loss_cls.get_cls_channels(C)
        cls_score = scores_of(head.loss_cls, 5, dtype=torch.float32)
        rois = torch.tensor([[0.0, 0, 0, 10, 10]]).repeat(5, 1)
        scores = head._predict_by_feat_single(
            roi=rois,
            cls_score=cls_score,
            bbox_pred=torch.zeros(5, 4),
            img_meta=dict(img_shape=(20, 20)),
            rescale=False,
            rcnn_test_cfg=None,
        ).scores
        expected = head.loss_cls.get_activation(cls_score)
        torch.testing.assert_close(scores, expected)
        assert scores.shape == (5, C + 1)
        assert (scores >= 0).all() and (scores <= 1).all()
        losses = head.loss(
            cls_score,
            torch.zeros(5, 4),
            rois,
            labels_of(head.loss_cls, 5),
            torch.ones(5),
            torch.zeros(5, 4),
            torch.zeros(5, 4),
        )
        assert 'acc_classes' in losses

    def test_batches_of_images_have_the_probabilities_of_their_rows(
        self, name
    ):
        loss = self.build(name)
        scores = scores_of(loss, 12)
        rows = loss.get_activation(scores)
        batches = loss.get_activation(scores.unflatten(0, (3, 4)))
        torch.testing.assert_close(
            batches, rows.unflatten(0, (3, 4)), rtol=0, atol=0
        )
        assert (
            loss.get_activation(scores[:0].unflatten(0, (3, 0))).numel() == 0
        )

    def test_accuracy_counts_foreground_rows(self, name):
        loss = self.build(name)
        if loss.column_blocks == ('classes',):
            pytest.skip('image classifiers have an accuracy of their own')
        labels = torch.tensor([0, 1, 4, C, C])
        scores = torch.full((5, loss.get_cls_channels(C)), -5.0)
        scores[0, 0] = scores[1, 1] = scores[2, 3] = 5.0  # the third is wrong
        scores[3:, -1] = 5.0
        accuracy = loss.get_accuracy(scores, labels)
        assert accuracy['acc_classes'].item() == pytest.approx(200 / 3)

    def test_meta_device(self, name):
        """No constant on the CPU, no look at a value: either would raise."""
        loss = self.build(name).to('meta')
        scores = torch.empty(
            7, loss.get_cls_channels(C), device='meta', requires_grad=True
        )
        labels = torch.empty(7, dtype=torch.int64, device='meta')
        weights = torch.empty(7, device='meta')
        total(loss(scores, labels, weights, avg_factor=3.0)).backward()
        total(loss(scores, labels)).backward()
        assert scores.grad is not None
        assert scores.grad.shape == scores.shape
        num_probs = C if loss.column_blocks == ('classes',) else C + 1
        assert loss.get_activation(scores).shape == (7, num_probs)
        assert loss.get_accuracy(scores, labels)['acc_classes'].is_meta
        with torch.device('meta'):
            self.build(name)

    def test_other_widths_and_classes_are_an_error(self, name):
        loss = self.build(name)
        labels = labels_of(loss, 4)
        for call in (lambda x: loss(x, labels), loss.get_activation):
            with pytest.raises(LongTailError, match='cls_score has'):
                call(torch.zeros(4, loss.get_cls_channels(C) + 1))
        words = r'num_classes is 10, .* 3 class'
        with pytest.raises(LongTailError, match=words):
            loss.set_class_statistics(statistics_of([3, 4, 5]))

    @pytest.fixture(scope='class')
    @classmethod
    def rank_gradients(cls, tmp_path_factory):
        """Folder with the gradient of every loss, <name>_<rank>.pth."""
        folder = tmp_path_factory.mktemp('gradients')
        run_on_two_ranks(_save_gradients, cls, str(folder))
        return folder

    def test_two_ranks_equal_one_big_batch(self, name, rank_gradients):
        """Equally many rows on each rank, every bin present on both."""
        loss = self.build(name)
        layer = _layer(loss)
        features = torch.cat([_rank_features(rank) for rank in range(2)])
        labels = [self.rank_labels(name, loss, rank) for rank in range(2)]
        total(loss(layer(features), torch.cat(labels))).backward()
        for rank in range(2):
            path = rank_gradients / f'{name}_{rank}.pth'
            gradient = torch.load(path, weights_only=True)
            torch.testing.assert_close(gradient, layer.weight.grad)

    @classmethod
    def rank_labels(cls, name, loss, rank):
        """Equal sums of weights need equal labels on both ranks."""
        seed = rank if cls.cases[name].has_equal_rows else 0
        return labels_of(loss, 20, seed)


def bbox_head(loss_config):
    return MODELS.build(
        ConfigDict(
            type='Shared2FCBBoxHead',
            in_channels=4,
            fc_out_channels=8,
            roi_feat_size=2,
            num_classes=C,
            reg_class_agnostic=True,
            loss_cls=loss_config,
        )
    )


def _layer(loss):
    torch.manual_seed(0)
    return nn.Linear(6, loss.get_cls_channels(C)).double()


def _rank_features(rank):
    generator = torch.Generator().manual_seed(rank)
    return torch.randn(20, 6, generator=generator, dtype=torch.float64)


def _save_gradients(rank, contract, folder):
    for name in contract.cases:
        loss = contract.build(name)
        layer = nn.parallel.DistributedDataParallel(_layer(loss))
        labels = contract.rank_labels(name, loss, rank)
        total(loss(layer(_rank_features(rank)), labels)).backward()
        torch.save(layer.module.weight.grad, f'{folder}/{name}_{rank}.pth')

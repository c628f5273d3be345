"""A loss of a user, in a module of its own, works without an edit of ours."""

from __future__ import annotations

import naive
import torch
import torch.nn.functional as F
from loss_contract import Case, LossContract
from mmdet.registry import MODELS
from mmengine.config import Config
from tiny import CLASS_NAMES, make_data, write_config

from mmdet_longtail.apis.config_writer import make_config
from mmdet_longtail.apis.detect import TrainedModel
from mmdet_longtail.models.losses import LongTailLoss
from mmdet_longtail.models.utils.classifier_conversion import (
    convert_checkpoint,
)
from mmdet_longtail.structures import Checkpoint, ClassStatistics

EXPLANATION = 'one question per class, and the tail is asked twice.'


@MODELS.register_module()
class MadeUpLoss(LongTailLoss):
    """Sigmoid cross-entropy that counts tail classes twice."""

    column_blocks = ('sigmoids',)
    explanation = EXPLANATION

    def __init__(
        self,
        num_classes: int,
        frequency_threshold: float,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(num_classes, loss_weight)
        self.frequency_threshold = frequency_threshold
        self.add_derived('class_weight', (num_classes,))

    def derive(self, statistics):
        return {
            'class_weight': 1 + statistics.is_tail(self.frequency_threshold)
        }

    def row_losses(self, logits, labels):
        y = F.one_hot(labels, self.num_classes + 1)[:, :-1].to(logits)
        loss = F.binary_cross_entropy_with_logits(logits, y, reduction='none')
        return (loss * self.class_weight.to(logits)).sum(1)


def made_up(loss, scores, labels):
    weights = loss.class_weight.tolist()
    return [
        sum(
            w * naive.softplus(-x if c == label else x)
            for c, (w, x) in enumerate(zip(weights, row))
        )
        for row, label in zip(scores, labels)
    ]


class TestContract(LossContract):
    cases = {'MadeUpLoss': Case(made_up, dict(frequency_threshold=0.05))}


def config_of(tmp_path, **loss_cls):
    """The config of a small detector with a loss."""
    path = write_config(tmp_path / f'{loss_cls["type"]}.py', tmp_path)
    config = Config.fromfile(path)
    head = config.model.roi_head.bbox_head
    head.loss_cls = loss_cls
    return config


def checkpoint_of(config):
    """A checkpoint with a random classifier and the statistics."""
    torch.manual_seed(0)
    head = MODELS.build(config.model.roi_head.bbox_head)
    torch.nn.init.normal_(head.fc_cls.weight)
    counts = ClassStatistics(CLASS_NAMES, [4, 3, 2, 1], [4, 3, 2, 1], 4, 4)
    weights = head.state_dict(prefix='roi_head.bbox_head.')
    return {
        'state_dict': {key: value.clone() for key, value in weights.items()},
        'meta': {
            'cfg': config.pretty_text,
            'dataset_meta': {'classes': CLASS_NAMES},
        },
        'class_statistics': counts.to_dict(),
    }


def test_conversion_there_and_back(tmp_path):
    softmax = config_of(tmp_path, type='CrossEntropyLoss', use_sigmoid=False)
    ours = config_of(
        tmp_path, type='MadeUpLoss', num_classes=4, frequency_threshold=0.6
    )
    source = Checkpoint.of(checkpoint_of(softmax))
    there = convert_checkpoint(source, ours)
    layer = 'roi_head.bbox_head.fc_cls.weight'
    rows = source.weights[layer]
    torch.testing.assert_close(there.weights[layer], rows[:-1] - rows[-1])
    weight = there.weights['roi_head.bbox_head.loss_cls.class_weight']
    assert weight.tolist() == [1, 1, 2, 2]
    back = convert_checkpoint(there, softmax)
    torch.testing.assert_close(back.weights[layer], rows - rows[-1])


def test_make_config_suggests_its_settings(tmp_path):
    data = make_data(tmp_path / 'data')
    base = write_config(tmp_path / 'base.py', data)
    out = tmp_path / 'made_up.py'
    make_config(
        data, 'train.json', 'val.json', 'MadeUpLoss', base=[str(base)], out=out
    )
    loss = Config.fromfile(out).model.roi_head.bbox_head.loss_cls
    assert loss.type == 'MadeUpLoss' and loss.num_classes == 4
    assert loss.frequency_threshold == 0  # these counts have no tail
    assert MODELS.build(loss).frequency_threshold == loss.frequency_threshold


def test_report_shows_its_explanation(tmp_path):
    config = config_of(
        tmp_path, type='MadeUpLoss', num_classes=4, frequency_threshold=0.6
    )
    path = tmp_path / 'epoch_1.pth'
    torch.save(checkpoint_of(config), path)
    assert TrainedModel(path).explanation() == EXPLANATION

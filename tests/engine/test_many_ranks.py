"""Detectors on two ranks, one of which has less than it needs.

Without find_unused_parameters: every weight has a gradient on every rank, or
DistributedDataParallel stops at the second step.
"""

import json
from pathlib import Path

import loss_cases
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.structures import InstanceData
from ranks import run_on_two_ranks
from tiny import CLASS_NAMES, write_config
from torch import distributed

from mmdet_longtail.models.losses import LongTailLoss
from mmdet_longtail.models.losses.online_state import OnlineState
from mmdet_longtail.structures.class_statistics import ClassStatistics

C = len(CLASS_NAMES)
DENSE = 'DenseEqualizationLoss'
LOSSES = [
    'CrossEntropyLoss',
    *(
        name
        for name in loss_cases.CASES
        if MODELS.get(name).custom_cls_channels  # as RoI heads want it
    ),
]
CASCADE = ['EqualizationLoss', 'BalancedGroupSoftmaxLoss']
LACKS = ['foreground', 'objects', 'rois']
CASES = [
    *(('LongTailShared2FCBBoxHead', loss, what)
      for loss in LOSSES for what in LACKS),
    # mmdet computes no classification loss without RoIs.
    *(('Shared2FCBBoxHead', loss, what)
      for loss in LOSSES for what in LACKS if what != 'rois'),
    *(('CascadeRoIHead', loss, what) for loss in CASCADE for what in LACKS),
    ('RetinaHead', DENSE, 'objects'),
]  # fmt: skip
# Its bins take background in proportion to their own classes.
NEEDS_FOREGROUND = 'BalancedGroupSoftmaxWithoutBackgroundLoss'
STEPS = 3


def loss_of(name):
    if name == 'CrossEntropyLoss':
        return dict(type=name, use_sigmoid=False)
    settings = loss_cases.CASES[name].settings | dict(type=name, num_classes=C)
    if 'BalancedGroup' in name:
        settings['bin_edges'] = (2, 3)
    return settings


def model_of(folder, head, loss, what, rank):
    """Build a detector, on the second rank one that lacks something."""
    model = Config.fromfile(write_config(folder / f'{rank}.py', folder)).model
    if what == 'rois':  # but for the boxes of objects
        model.train_cfg.rpn_proposal.min_bbox_size = 1000
    if what == 'foreground' and rank == 1:
        model.train_cfg.rcnn.sampler.add_gt_as_proposals = False
        model.train_cfg.rcnn.assigner.update(pos_iou_thr=1.1, min_pos_iou=1.1)
    bbox_head = model.roi_head.bbox_head
    bbox_head.loss_cls = loss_of(loss)
    if head == 'CascadeRoIHead':
        bbox_head.type = 'LongTailShared2FCBBoxHead'
        model.roi_head.update(
            type=head,
            num_stages=2,
            stage_loss_weights=[1, 0.5],
            bbox_head=[bbox_head, bbox_head],
        )
        model.train_cfg.rcnn = [model.train_cfg.rcnn] * 2
    elif head == 'RetinaHead':
        rpn_head = model.pop('rpn_head')
        model.pop('roi_head')
        model.type = 'RetinaNet'
        model.train_cfg = model.train_cfg.rpn
        model.train_cfg.sampler = dict(type='PseudoSampler')
        model.bbox_head = dict(
            rpn_head, type=head, num_classes=C, stacked_convs=1,
            loss_cls=loss_of(loss),
        )  # fmt: skip
    else:
        bbox_head.type = head
    torch.manual_seed(0)
    model = MODELS.build(model)
    counts = [6, 3, 2, 1]
    statistics = ClassStatistics(CLASS_NAMES, counts, counts, 6, 6)
    for module in model.modules():
        if isinstance(module, LongTailLoss):
            module.set_class_statistics(statistics)
        if isinstance(module, OnlineState):
            module.is_reduced = True  # There is no runner for the hook.
    return model


def batch_of(has_objects):
    """One image, with a box of each class or without any."""
    generator = torch.Generator().manual_seed(0)
    boxes = torch.tensor(
        [[8.0, 8, 28, 28], [32, 8, 52, 28], [8, 32, 28, 52], [32, 32, 52, 52]]
    )
    number = C if has_objects else 0
    sample = DetDataSample(
        metainfo=dict(img_shape=(64, 64), pad_shape=(64, 64), scale_factor=1),
        gt_instances=InstanceData(
            bboxes=boxes[:number], labels=torch.arange(C)[:number]
        ),
        ignored_instances=InstanceData(
            bboxes=boxes[:0], labels=torch.arange(0)
        ),
    )
    image = torch.randint(0, 256, (3, 64, 64), generator=generator)
    return dict(inputs=[image.to(torch.uint8)], data_samples=[sample])


def train_on_rank(rank, folder):
    """Train each case, and keep the first losses and what ranks end with."""
    register_all_modules()
    folder = Path(folder)
    batches = [batch_of(True), batch_of(False)]
    found = []
    for head, loss, what in CASES:
        model = MMDistributedDataParallel(
            model_of(folder, head, loss, what, rank), broadcast_buffers=False
        )
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        wrapper = OptimWrapper(optimizer)
        has_objects = rank == 0 or what == 'foreground'
        logs = [
            model.train_step(batches[0 if has_objects else 1], wrapper)
            for _ in range(STEPS)
        ]
        weights = torch.cat([p.detach().flatten() for p in model.parameters()])
        of_ranks = [torch.empty_like(weights) for _ in range(2)]
        distributed.all_gather(of_ranks, weights)
        found.append(
            dict(
                losses={name: float(v) for name, v in logs[0].items()},
                is_finite=bool(weights.isfinite().all()),
                is_same=torch.equal(*of_ranks),
            )
        )
    (folder / f'{rank}.json').write_text(json.dumps(found))


@pytest.fixture(scope='module')
def found(tmp_path_factory):
    """What train_on_rank has kept, on both ranks, of each case."""
    folder = tmp_path_factory.mktemp('ranks')
    run_on_two_ranks(train_on_rank, str(folder))
    of_ranks = [json.loads((folder / f'{r}.json').read_text()) for r in (0, 1)]
    return dict(zip(CASES, zip(*of_ranks)))


def total(losses, part):
    """Add up the terms of a loss; a cascade has those of two stages."""
    return sum(
        v for name, v in losses.items() if part in name and 'rpn' not in name
    )


@pytest.mark.parametrize('case', CASES, ids='-'.join)
def test_the_other_rank_does_not_wait(case, found):
    head, loss, what = case
    one, other = found[case]
    for rank in (one, other):
        assert rank['is_finite'] and rank['is_same']
    assert one['losses'].keys() >= {n for n in other['losses'] if 'loss' in n}
    assert total(one['losses'], 'loss_cls') > 0
    assert total(other['losses'], 'loss_bbox') == 0
    loss_cls = total(other['losses'], 'loss_cls')
    if what == 'rois':
        assert loss_cls == 0
    elif loss != NEEDS_FOREGROUND:
        assert loss_cls > 0
    if head != 'RetinaHead':
        assert total(one['losses'], 'loss_bbox') > 0

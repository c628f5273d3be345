"""Try the long-tail losses in the models of mmdet's own configs.

``python tests/helpers/support.py`` (``make support``) writes docs/support.md.

A family is a class of RoI head with a class of bbox head, or a class of
dense head. Of every folder of mmdet's configs, the config whose name sorts
first stands for each family in it. Its head and neck stay as they are; the
backbone is made small, and there are 80 classes.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mmdet
import numpy as np
import torch
from mmdet.models.backbones.trident_resnet import TridentConv
from mmdet.models.mot import BaseMOTModel
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config, ConfigDict
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import mmdet_longtail  # noqa: F401
from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.losses import LongTailLoss
from mmdet_longtail.models.utils.head_support import (
    DENSE_CLASSES,
    QUALITY_CLASSES,
    ROI_CLASSES,
    check_head_support,
    unsupported_method,
)
from mmdet_longtail.structures.class_statistics import ClassStatistics
from mmdet_longtail.utils.fileio import write_atomic

CONFIGS = Path(mmdet.__file__).parent / '.mim' / 'configs'
DOCUMENT = Path(__file__).parents[2] / 'docs' / 'support.md'
NUM_CLASSES = 80
IMAGE_SIZE = 128

SAME_WIDTH, OWN_WIDTH = 'C + 1 channels', 'other widths'
DENSE, QUALITY = 'dense', 'quality'
KINDS = {
    SAME_WIDTH: 'SoftmaxEqualizationLoss EqualizationLossV2 '
    'EffectiveClassMarginLoss BalancedSoftmaxLoss EquilibriumLoss '
    'ReweightedSoftmaxLoss TauNormSelectLoss',
    OWN_WIDTH: 'EqualizationLoss FederatedLoss DropLoss GumbelDropLoss '
    'GumbelEqualizationLoss RoIFocalLoss SyncSeesawLoss '
    'BalancedGroupSoftmaxLoss BalancedGroupSoftmaxWithoutOthersLoss '
    'BalancedGroupSoftmaxWithoutBackgroundLoss '
    'ReweightedBalancedGroupSoftmaxLoss',
    DENSE: 'DenseEqualizationLoss DenseFederatedLoss EqualizedFocalLoss',
    QUALITY: 'EqualizedQualityFocalLoss',
}
"""Losses that work in the same heads. The first is tried in every model."""
COMPARED = {
    'Faster R-CNN': 'StandardRoIHead + Shared2FCBBoxHead',
    'Cascade R-CNN': 'CascadeRoIHead + Shared2FCBBoxHead',
    'HTC': 'HybridTaskCascadeRoIHead + Shared2FCBBoxHead',
}
"""Families with trials of all losses for RoI heads."""
ELSEWHERE = 'VerifiedFederatedLoss SoftmaxEqualizationClassificationLoss'
"""Losses that need what no config of mmdet has."""

ANSWERS = {
    (SAME_WIDTH, OWN_WIDTH): 'all for RoI heads',
    (SAME_WIDTH,): f'those of {SAME_WIDTH}',
    (DENSE, QUALITY): 'all for dense heads',
    (QUALITY,): 'the quality focal loss',
    (): 'refused',
}
"""The document's words for the kinds of losses that work in a model."""

OTHER_HEAD = {'DeformableDETRHead': 'LongTailDeformableDETRHead'}
"""Heads that have to be replaced, and what by, for dense losses."""

SMALL_BACKBONES = (
    'CSPDarknet CSPNeXt Darknet HourglassNet SSDVGG TridentResNet'
).split()
"""Their necks and heads need them as they are."""

WITHOUT_MASKS = ('StandardRoIHead', 'CascadeRoIHead', 'SparseRoIHead')
"""RoI heads that are tried without their masks."""

WORKS, REFUSED = 'works', 'refused'
NOT_APPLICABLE, NOT_RUN = 'not applicable', 'not run'
FAILED = 'failed'
"""What must not be: neither refused nor working."""

FEW = dict(
    num_proposals=20,
    num_queries=50,
    num_dn_queries=10,
    nms_pre=100,
    max_per_img=20,
    fc_out_channels=64,
)
"""Upper limits of what costs time."""
IMAGE_SIZES = {'DDODHead': 384}
"""Where the last level has to be larger than one pixel."""


@dataclass
class Trial:
    """What came of one loss in one model."""

    state: str
    reason: str = ''
    first_loss: float | None = None


@dataclass
class Row:
    """A family in a folder, its config, and what came of each loss."""

    folder: str
    config: str
    family: str
    first_loss: float | None = None
    trials: dict[str, Trial] = field(default_factory=dict)

    def answer(self) -> str:
        """Which losses work, in the words of the document."""
        for trial in self.trials.values():
            if trial.state in (NOT_APPLICABLE, NOT_RUN, FAILED):
                return f'{trial.state}: {trial.reason}'
        works = []
        for kind, (first, *others) in losses_by_kind():
            state = self.trials[first].state
            for name in others:
                if name in self.trials and self.trials[name].state != state:
                    return f'{FAILED}: {name} is not {state} as {first}'
            if state == WORKS:
                works.append(kind)
        return ANSWERS.get(tuple(works), f'{FAILED}: only {works}')


def losses_by_kind() -> Iterator[tuple[str, list[str]]]:
    """The kinds, each with the names of its losses."""
    for kind, names in KINDS.items():
        yield kind, names.split()


def representative_losses() -> list[str]:
    return [names[0] for _, names in losses_by_kind()]


def all_losses() -> list[str]:
    return [name for _, names in losses_by_kind() for name in names]


def losses_to_try(family: str, is_first: bool) -> list[str]:
    """Those to try in a model, which may be the first of its family."""
    names = [*representative_losses()]
    if is_first:
        names += KINDS[DENSE].split()
        if family in COMPARED.values():
            names += all_losses()
    return [*dict.fromkeys(names)]


def loss_of(name: str) -> dict[str, Any]:
    """A loss_cls, as a user would write it."""
    loss: dict[str, Any] = dict(type=name, num_classes=NUM_CLASSES)
    if not MODELS.get(name).custom_cls_channels:
        loss['use_sigmoid'] = True
    if 'Reweighted' in name:
        loss['class_weight'] = dict(type='InverseClassWeight')
    return loss


# -- the models --------------------------------------------------------------


def read_model(path: Path) -> ConfigDict | None:
    """The model of a config, or None of a file that has none."""
    # Backbones are replaced: their packages need not be there.
    config = Config.fromfile(path, import_custom_modules=False)
    model = config.get('model')
    return model if model is not None and 'type' in model else None


def _known_model(path: Path) -> dict[str, Any]:
    model = read_model(path)
    assert model is not None
    return model.to_dict()


def part_with_heads(model: dict[str, Any]) -> dict[str, Any]:
    """The detector inside a tracker or a semi-supervised model."""
    inner = model.get('detector')
    return inner if isinstance(inner, dict) and 'type' in inner else model


def bbox_heads(model: dict[str, Any]) -> list[dict[str, Any]]:
    """The configs of the heads that classify boxes."""
    detector = part_with_heads(model)
    owner = detector.get('roi_head') or detector
    heads = owner.get('bbox_head') or []
    return heads if isinstance(heads, list) else [heads]


def family_of(model: dict[str, Any]) -> str:
    heads = bbox_heads(model)
    if not heads:
        return model['type']
    outer = model['type'] if part_with_heads(model) is not model else ''
    roi_head = part_with_heads(model).get('roi_head') or {}
    kinds = dict.fromkeys(head['type'] for head in heads)
    names = (outer, roi_head.get('type'), *kinds)
    return ' + '.join(name for name in names if name)


def representatives() -> Iterator[Row]:
    """The families of every folder, each with its config."""
    folders = sorted(
        path for path in CONFIGS.iterdir() if path.name != '_base_'
    )
    for folder in folders:
        families: dict[str, str] = {}
        for path in sorted(folder.rglob('*.py')):
            try:
                model = read_model(path)
            except (ImportError, FileNotFoundError):
                continue  # of mmpretrain's, or a base that mmdet left out
            if model is not None:
                name = str(path.relative_to(folder))
                families.setdefault(family_of(model), name)
        for family, name in families.items() or [('', '')]:
            yield Row(folder.name, name, family)


def walk(node: Any) -> Iterator[dict[str, Any]]:
    """All dicts in a config."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list | tuple):
        for child in node:
            yield from walk(child)


def shrink(model: dict[str, Any]) -> dict[str, Any]:
    """The same necks and heads behind a small backbone, for 80 classes."""
    model = copy.deepcopy(model)
    for node in walk(model):
        if node.get('type') in ('SyncBN', 'MMSyncBN'):
            node['type'] = 'BN'  # needs GPUs
        for key in ('init_cfg', 'teacher_ckpt'):
            value = node.get(key)
            is_file = isinstance(value, dict) and (
                value.get('type') == 'Pretrained'
            )
            if is_file or isinstance(value, str):
                node[key] = None
        for key in ('batch_augments', 'pretrained'):
            node.pop(key, None)
        for key, value in FEW.items():
            if isinstance(node.get(key), int):
                node[key] = min(node[key], value)
        if node.get('type') == 'FeatureRelayHead':
            node['in_channels'] = FEW['fc_out_channels']
        if 'score_thr' in node:
            node['score_thr'] = 0.0
        # One needs a GPU, the other a backbone of its own.
        if node.get('type') in ('FPN_CARAFE', 'RFP'):
            keep = ('in_channels', 'out_channels', 'num_outs', 'start_level')
            kept = {key: node[key] for key in keep if key in node}
            node.clear()
            node.update(kept, type='FPN')
    for part in walk(model):
        for head in ('bbox_head', 'mask_head', 'mask_iou_head', 'point_head'):
            for node in walk(part.get(head)):
                if 'num_classes' in node:
                    node['num_classes'] = NUM_CLASSES
                if 'class_weight' in node and not isinstance(
                    node['class_weight'], float
                ):
                    node.pop('class_weight')
    for detector in (model, part_with_heads(model)):
        shrink_backbone(detector)
        roi_head = detector.get('roi_head') or {}
        if roi_head.get('type') in WITHOUT_MASKS:
            for key in [key for key in roi_head if key.startswith('mask_')]:
                roi_head.pop(key)
    if model['type'] == 'PanopticFPN':  # its map keeps no scores
        model['type'] = 'FasterRCNN'
        for key in ('semantic_head', 'panoptic_fusion_head'):
            model.pop(key)
    # A random box may have no size, and be the best.
    if 'min_bbox_size' in (model.get('test_cfg') or {}):
        model['test_cfg']['min_bbox_size'] = -1
    preprocessor = model.get('data_preprocessor') or {}
    if preprocessor.get('type') == 'DetDataPreprocessor':
        preprocessor.update(mean=[127.0] * 3, std=[60.0] * 3)
    return model


def shrink_backbone(detector: dict[str, Any]) -> None:
    backbone, neck = detector.get('backbone'), detector.get('neck')
    if not backbone or not neck or backbone['type'] in SMALL_BACKBONES:
        return
    first = neck[0] if isinstance(neck, list) else neck
    if first['type'] == 'CTResNetNeck' or 'in_channels' not in first:
        return
    channels = [8, 16, 32, 64]
    given = first['in_channels']
    num_levels = len(given) if isinstance(given, list | tuple) else 1
    detector['backbone'] = dict(
        type='ResNet',
        depth=18,
        base_channels=8,
        out_indices=tuple(range(4 - num_levels, 4)),
    )
    first['in_channels'] = (
        channels[-num_levels:]
        if isinstance(given, list | tuple)
        else channels[-1]
    )


def override(model: dict[str, Any], name: str) -> dict[str, Any]:
    """The same model with another loss_cls, as a user would write it."""
    model = copy.deepcopy(model)
    loss = loss_of(name)
    for head in bbox_heads(model):
        if 'use_sigmoid' in loss:
            head['type'] = OTHER_HEAD.get(head['type'], head['type'])
        head['loss_cls'] = copy.deepcopy(loss)
    return model


# -- one trial ---------------------------------------------------------------


def build(model: dict[str, Any]) -> nn.Module:
    torch.manual_seed(0)
    built = MODELS.build(ConfigDict(copy.deepcopy(model)))
    built.init_weights()
    for module in built.modules():
        if isinstance(module, TridentConv):  # comes without any values
            nn.init.normal_(module.weight, std=0.01)
    return built


def build_without_weights(model: dict[str, Any]) -> nn.Module:
    with torch.device('meta'):
        return MODELS.build(ConfigDict(copy.deepcopy(model)))


def give_statistics(model: nn.Module, num_classes: int = NUM_CLASSES) -> None:
    count = np.random.default_rng(0).geometric(0.01, num_classes)
    names = tuple(map(str, range(num_classes)))
    statistics = ClassStatistics(names, count, 2 * count, 50000, count.max())
    for module in model.modules():
        if isinstance(module, LongTailLoss):
            module.set_class_statistics(statistics)


def make_inputs(model: nn.Module) -> dict[str, Any]:
    text = repr(model)
    head = type(classifiers(model)[0]).__name__
    size = IMAGE_SIZES.get(head, IMAGE_SIZE)
    inputs = demo_mm_inputs(
        1,
        [(3, size, size)],
        num_items=[5],
        num_classes=NUM_CLASSES,
        with_mask=True,
        with_semantic='semantic' in text.lower(),
    )
    if not getattr(model, 'with_rpn', True):  # Fast R-CNN reads proposals
        for sample in inputs['data_samples']:
            boxes = sample.gt_instances.bboxes
            moved = [boxes + 2 * shift for shift in range(5)]
            sample.proposals = type(sample.gt_instances)(
                bboxes=torch.cat(moved), scores=torch.ones(5 * len(boxes))
            )
    return inputs


def take_a_step(model: Any) -> float:
    """Train on one image; give the classification loss that it started with.

    Of a cascade it is the first stage's, of a DETR the last layer's.
    """
    model.train()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()  # the last levels have one pixel
    # BoxInst asks a runner how far it is.
    MessageHub.get_current_instance().update_info('iter', 0)
    data = model.data_preprocessor(make_inputs(model), training=True)
    total, logged = model.parse_losses(model.forward(**data, mode='loss'))
    assert total.isfinite()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    total.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    terms = [
        float(value)
        for key, value in logged.items()
        if re.match(r'(s0\.|stage0_)?(loss_cls|cls_loss)', key)
    ]
    return sum(terms)


def predict(model: Any) -> tuple[torch.Tensor, torch.Tensor, list]:
    """Scores and labels of an image, and the raw scores behind them."""
    make_sure_of_quality(model)
    outputs: list[Any] = []
    is_roi_head = hasattr(model, 'roi_head')
    handles = [
        (one.fc_cls if is_roi_head else one).register_forward_hook(
            lambda module, args, output: outputs.append(output)
        )
        for one in classifiers(model)
    ]
    model.eval()
    with torch.no_grad():
        data = model.data_preprocessor(make_inputs(model), training=False)
        (result,) = model.forward(**data, mode='predict')
    for handle in handles:
        handle.remove()
    instances = result.pred_instances
    return instances.scores, instances.labels, outputs


def make_sure_of_quality(model: Any) -> None:
    """Let the second score that mmdet multiplies with be 1."""
    for name, module in model.named_modules():
        last = name.rpartition('.')[2]
        if 'centerness' in last or last == 'atss_iou':
            for convolution in module.modules():
                if isinstance(convolution, nn.Conv2d):
                    nn.init.zeros_(convolution.weight)
                    assert convolution.bias is not None
                    nn.init.constant_(convolution.bias, 100.0)
        if last == 'fc_mask_iou':
            nn.init.zeros_(module.weight)
            nn.init.ones_(module.bias)


def classifiers(model: Any) -> list[Any]:
    """The heads that classify boxes, one a stage."""
    roi_head = getattr(model, 'roi_head', None)
    head = model.bbox_head if roi_head is None else roi_head.bbox_head
    return list(head) if isinstance(head, nn.ModuleList) else [head]


def raw_scores(model: Any, outputs: list[Any]) -> torch.Tensor:
    """All rows of scores of an image (N, D), from what was recorded."""
    if hasattr(model, 'roi_head'):
        scores = [output.flatten(0, -2) for output in outputs]
        if type(model.roi_head).__name__ == 'SparseRoIHead':
            return scores[-1]
        num_stages = len(classifiers(model))
        if num_stages == 1:
            return scores[-1]
        # SCNet classifies once more, for its masks.
        return torch.stack(scores[:num_stages]).mean(0)
    maps = outputs[-1][0]
    if torch.is_tensor(maps):  # DETR: layer, image, query, channel
        return maps[-1].flatten(0, -2)
    num_columns = NUM_CLASSES
    assert all(one.size(1) % num_columns == 0 for one in maps)
    return torch.cat(
        [one.permute(0, 2, 3, 1).reshape(-1, num_columns) for one in maps]
    )


def check_predictions(model: Any) -> None:
    """Scores are the loss's probabilities of the class, the best is first."""
    scores, labels, outputs = predict(model)
    loss = classifiers(model)[-1].loss_cls
    raw = raw_scores(model, outputs)
    assert raw.size(1) == loss.get_cls_channels(NUM_CLASSES)
    probs = loss.get_activation(raw)[:, :NUM_CLASSES]
    assert len(scores) > 0
    distance = (probs[:, labels] - scores).abs().amin(0)
    assert distance.max() < 1e-6, f'scores differ by {distance.max():.3g}'
    assert (scores.max() - probs.max()).abs() < 1e-6, 'the best is missing'


def try_loss(model: dict[str, Any], name: str) -> Trial:
    """Override, look, train, predict; whatever else happens is raised."""
    changed = override(model, name)
    try:
        check_head_support(build_without_weights(changed))
        built = build(changed)
        give_statistics(built)
        first_loss = take_a_step(built)
    except LongTailError as error:
        return Trial(REFUSED, str(error))
    check_predictions(built)
    return Trial(WORKS, first_loss=first_loss)


def why_not_applicable(model: dict[str, Any]) -> str:
    """In words, or '' if a classifier of boxes has a loss_cls."""
    kind = MODELS.get(model['type'])
    if kind is not None and issubclass(kind, BaseMOTModel):
        return 'a tracker: train its detector with a config of the detector'
    heads = bbox_heads(model)
    if not heads:
        return 'no bbox_head'
    return ''


def try_all(
    model: dict[str, Any], names: list[str]
) -> tuple[float | None, dict[str, Trial]]:
    """The first loss of a model with its own loss, and trials by name."""
    reason = why_not_applicable(model)
    small = shrink(model)
    if not reason and part_with_heads(model) is model:
        (head, *_) = classifiers(build_without_weights(small))
        if not hasattr(head, 'loss_cls'):
            reason = f'{type(head).__name__} has no loss_cls'
    if reason:
        return None, dict.fromkeys(names, Trial(NOT_APPLICABLE, reason))
    trials = {name: try_loss(small, name) for name in names}
    if all(trial.state == REFUSED for trial in trials.values()):
        return None, trials
    return take_a_step(build(small)), trials


def first_losses_of_retinanet(num_classes: int) -> tuple[float, float]:
    """Focal loss and EQL of the same untrained model."""
    path = CONFIGS / 'retinanet' / 'retinanet_r50_fpn_1x_coco.py'
    focal = shrink(_known_model(path))
    eql = override(focal, 'DenseEqualizationLoss')
    losses = []
    for model in (focal, eql):
        head = model['bbox_head']
        head['num_classes'] = num_classes
        if 'num_classes' in head['loss_cls']:
            head['loss_cls']['num_classes'] = num_classes
        built = build(model)
        give_statistics(built, num_classes)
        losses.append(take_a_step(built))
    return losses[0], losses[1]


def sweep(folders: list[str]) -> list[Row]:
    """Try everything in these folders, or in all; equal heads once."""
    rows = []
    tried: dict[str, tuple[float | None, dict[str, Trial]]] = {}
    families: set[str] = set()  # that had a trial
    for row in representatives():
        if folders and row.folder not in folders:
            continue
        if not row.config:
            trial = Trial(NOT_APPLICABLE, 'no model in its configs')
            row.trials = dict.fromkeys(representative_losses(), trial)
        else:
            model = _known_model(CONFIGS / row.folder / row.config)
            key = heads_of(shrink(model))
            if key not in tried:
                names = losses_to_try(row.family, row.family not in families)
                try:
                    tried[key] = try_all(model, names)
                    families.add(row.family)
                except Exception as error:  # all of them go into the table
                    trial = what_failed(error)
                    tried[key] = None, without_a_run(model, names, trial)
            row.first_loss, row.trials = tried[key]
        rows.append(row)
        print(row.folder, row.family, row.answer(), sep='; ', flush=True)
    return rows


def heads_of(model: dict[str, Any]) -> str:
    """What makes a model different here: not backbone, neck and RPN."""
    detector = part_with_heads(model)
    parts = [detector.get(key) for key in ('roi_head', 'bbox_head')]
    return json.dumps([model['type'], *parts], sort_keys=True, default=repr)


def without_a_run(
    model: dict[str, Any], names: list[str], trial: Trial
) -> dict[str, Trial]:
    """What the classes of the heads alone decide, else the given."""
    kinds = [MODELS.get(head['type']) for head in bbox_heads(model)]
    trials = dict.fromkeys(names, trial)
    for name in names if trial.state == NOT_RUN else ():
        loss = MODELS.get(name)
        known = ROI_CLASSES if loss.custom_cls_channels else DENSE_CLASSES
        known = QUALITY_CLASSES if loss.takes_quality else known
        found = [unsupported_method(kind, known) for kind in kinds if kind]
        if found and found[0] is not None:
            owner, seam = found[0]
            trials[name] = Trial(
                REFUSED,
                f'{kinds[0].__name__}, by its class alone, as the model '
                f'{trial.reason}: {owner.__name__}.{seam} trains or predicts '
                'in its own way; keep the loss of this head',
            )
    return trials


def what_failed(error: Exception) -> Trial:
    """A part that this machine lacks, or a failure."""
    found = re.search(
        r"(\w+) is not installed|No module named '(\w+)'|"
        r'pip install (\w+)',
        str(error),
    )
    if found is None:
        return Trial(FAILED, f'{type(error).__name__}: {error}')
    return Trial(NOT_RUN, f'needs {found[1] or found[2] or found[3]}')


# -- the document ------------------------------------------------------------

INTRODUCTION = """\
# Which detectors the losses work in

Use this page to find out whether a loss works in your detector. `make support`
writes it from trials in the models of mmdet's own configs. A loss works in a
head if replacing `loss_cls` is enough:

- The classifier has the width of the loss, and a training step succeeds.
- Every predicted score is the loss's probability of that class, and the
  largest one is among them.

In all other heads `ClassStatisticsHook` raises a one-line `LongTailError`
before the first iteration. It names the head and the solution.

"""

NOTES = f"""
- Losses of {SAME_WIDTH} also work in RoI heads that do not take the width of
  their classifier from the loss.
- Deformable DETR also needs `bbox_head.type='LongTailDeformableDETRHead'`. Its
  two-stage encoder gives every object the label 0, and this head keeps a plain
  loss there.
- `EqualizedQualityFocalLoss` learns the IoU in `GFLHead` and in DETR heads.
  Elsewhere the quality of a positive is 1.
- `EqualizedFocalLoss` is experimental in DETR heads.
- `VerifiedFederatedLoss` needs a RoI head of this package, which has
  [image-level labels](image_level_labels.md).
- `SoftmaxEqualizationClassificationLoss` is for image classification, and
  refused in all detectors.
- `OHEMSampler` is refused with BAGS, which has no loss per row. It is refused
  with losses of online state, which would count the proposals that it drops,
  and with image-level labels: it does not pass the image of a proposal.

## Your own head

A head of your own works if it inherits the methods that compute losses and
predictions from a supported class. A head that overrides such a method is
refused, even if the method calls `super()`. To declare its support:

1. Check that it calls the loss with (cls_score, labels, label_weights).
2. Check that it predicts by the loss's activation.
3. Set the class attribute `supports_long_tail_losses = True` in it.

A subclass that overrides such a method again has to set the attribute again.

## How the trials are made

A family is a class of RoI head with a class of bbox head, or a class of dense
head. In every folder of mmdet's configs, the config whose name sorts first is
tried for each family, with a loss of each kind: `SoftmaxEqualizationLoss`,
`EqualizationLoss`, `DenseEqualizationLoss` and `EqualizedQualityFocalLoss`.
The first model of a family is tried with all losses for dense heads, and the
first Faster R-CNN, Cascade R-CNN and HTC with all losses.

| part | in the trial |
| --- | --- |
| heads, necks | as configured, {NUM_CLASSES} classes, narrow hidden layers |
| backbones | small |
| RoIs and queries | few |
| mask heads of Standard, Cascade and Sparse RoI heads | left out |
| semantic, fusion heads of Panoptic FPN | left out: no scores in its map |
| CARAFE and RFP | replaced by FPN |

Models that differ only in backbone, neck or RPN share one trial. Models that
need packages or weights besides mmdet's own could not be built. Their heads
are refused by their class alone where the class decides.

## What EQL does in one-stage detectors

Do not expect much from EQL in one-stage detectors. EQL protects tail classes
only in foreground rows: E(r) is 0 for background. A RoI head samples one
foreground row per three background rows. In a one-stage head far more than
99 % of the rows are background, and all of them suppress the tail classes as
before. EQL also replaces focal loss, which makes training on all these rows
possible. Published attempts in RetinaNet and YOLOv5 failed, and the authors of
EQL recommend Equalized Focal Loss instead. The trials here only show that EQL
trains.

The first loss is large if all rows are counted and divided by the number of
objects. It also grows with the number of classes, as the last table of the
next section shows for RetinaNet. Clip gradients for this reason, as in
configs/dense, or lower the learning rate.

## First losses

The tables show the classification loss of the first iteration with random
weights, on one image of {IMAGE_SIZE} x {IMAGE_SIZE} pixels with 5 objects. Of
a cascade it is the loss of the first stage, of a DETR that of the last layer.

"""


def write_document(rows: list[Row]) -> None:
    """The tables: what works, first losses, why not, and by folder."""
    families: dict[str, Row] = {}
    for row in rows:
        # Of several in a family, the first that was run.
        best = families.setdefault(row.family, row)
        if any(trial.state == NOT_RUN for trial in best.trials.values()):
            families[row.family] = row
    families = dict(sorted(families.items()))
    kinds = dict(losses_by_kind())
    roi_losses = kinds[SAME_WIDTH] + kinds[OWN_WIDTH]
    dense_losses = kinds[DENSE] + kinds[QUALITY]
    text = INTRODUCTION + table(
        ['heads', 'losses that work'],
        [
            [
                ', '.join(
                    f'`{family}`'
                    for family, row in families.items()
                    if row.answer() == answer
                ),
                answer
                + ': '
                + ', '.join(
                    f'`{name}`' for kind in works for name in kinds[kind]
                ),
            ]
            for works, answer in ANSWERS.items()
            if works
        ],
    )
    text += NOTES
    for names in (representative_losses()[:2], dense_losses):
        text += first_losses(families, names) + '\n'
    text += table(
        ['loss', *COMPARED],
        [
            [
                name,
                *(
                    shown(families[family].trials[name].first_loss)
                    for family in COMPARED.values()
                ),
            ]
            for name in roi_losses
        ],
    )
    text += '\n'
    text += table(
        ['RetinaNet', 'focal loss', 'DenseEqualizationLoss'],
        [
            [
                f'{number} classes',
                *map(shown, first_losses_of_retinanet(number)),
            ]
            for number in (NUM_CLASSES, 1203)
        ],
    )
    text += """
## Errors of the refused heads

A dense loss in a RoI head, and a loss for RoI heads in a dense head, is
refused with the name of the loss to use instead. Of all other refused losses
the list has one per head.

"""
    text += ''.join(f'- {reason}\n' for reason in reasons(families))
    text += "\n## mmdet's configs by folder\n\n"
    text += table(
        ['folder', 'config', 'family', 'losses that work'],
        [
            [
                row.folder,
                row.config.removesuffix('.py'),
                row.family,
                row.answer(),
            ]
            for row in rows
        ],
    )
    write_atomic(DOCUMENT, text)


def first_losses(families: dict[str, Row], names: list[str]) -> str:
    """The table of the families in which one of these losses works."""
    return table(
        ['family', 'its own loss', *names],
        [
            [family, shown(row.first_loss)]
            + [
                shown(trial.first_loss)
                if trial.state == WORKS
                else trial.state
                for trial in (row.trials[name] for name in names)
            ]
            for family, row in families.items()
            if any(
                name in row.trials and row.trials[name].state == WORKS
                for name in names
            )
        ],
    )


def reasons(families: dict[str, Row]) -> list[str]:
    """The first error of each refused head, of a loss of its kind."""
    found: dict[str, None] = {}
    for row in families.values():
        for trial in row.trials.values():
            is_other_kind = re.search(
                r'is for (RoI heads|dense and DETR heads)', trial.reason
            )
            if trial.state == REFUSED and not is_other_kind:
                found[trial.reason] = None
                break
    return list(found)


def shown(value: float | None) -> str:
    return '' if value is None else f'{value:.3g}'


def table(names: list[str], lines: list[list[str]]) -> str:
    """A table in Markdown."""
    rule = ['---'] * len(names)
    return ''.join(
        f'| {" | ".join(line)} |\n' for line in [names, rule, *lines]
    )


def documented() -> dict[tuple[str, str], str]:
    """The answers in docs/support.md, by folder and family."""
    by_folder = DOCUMENT.read_text().rpartition('\n## ')[2]
    cells = [
        [cell.strip() for cell in line.strip('|').split('|')]
        for line in by_folder.splitlines()
        if line.startswith('|')
    ]
    return {(line[0], line[2]): line[3] for line in cells[2:]}


def has_loss(answer: str, name: str) -> bool:
    """Whether a loss works, by an answer of the document."""
    kinds = {words: kinds for kinds, words in ANSWERS.items()}[answer]
    return any(name in KINDS[kind].split() for kind in kinds)


def prepare() -> None:
    """The scope, and the folder that mmdet's relative paths start in."""
    torch.set_num_threads(1)
    os.chdir(CONFIGS.parent)
    init_default_scope('mmdet')


if __name__ == '__main__':
    logging.disable(logging.WARNING)
    prepare()
    found = sweep(sys.argv[1:])
    write_document(found)
    sys.exit(any(row.answer().startswith(FAILED) for row in found))

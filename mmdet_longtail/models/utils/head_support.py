"""Check that each long-tail loss is in a head that supports it.

A loss depends on code of the head: on the width of the classifier, on the
arguments of the call, and on the function that turns scores into
probabilities. A class that overrides a method of ``METHODS`` is therefore not
supported, unless it is one of the classes below, which were tried
(docs/support.md), or sets ``supports_long_tail_losses = True``. A class that
overrides none supports the losses that its bases support.
"""

from collections.abc import Iterator
from itertools import chain
from typing import Any

from mmdet.models import dense_heads, detectors, mot, roi_heads
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.detectors.single_stage_instance_seg import (
    SingleStageInstanceSegmentor,
)
from mmdet.models.roi_heads.bbox_heads import BBoxHead, DIIHead
from mmdet.models.task_modules.assigners import ClassificationCost
from mmdet.models.task_modules.samplers import OHEMSampler, ScoreHLRSampler
from torch import nn

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.dense_heads import LongTailDeformableDETRHead
from mmdet_longtail.models.losses import LongTailLoss, OnlineState
from mmdet_longtail.models.losses.base import warn_once
from mmdet_longtail.models.roi_heads.bbox_heads.long_tail_bbox_head import (
    LongTailBBoxHeadMixin,
)
from mmdet_longtail.models.roi_heads.long_tail_roi_head import (
    LongTailRoIHeadMixin,
)
from mmdet_longtail.utils.checks import check_numbers

# mmdet's default of 0.05 is above most scores of tail classes.
LARGEST_SCORE_THR = 1e-2

METHODS = (
    'loss loss_and_predict loss_and_target loss_by_feat loss_by_feat_single '
    'bbox_loss predict predict_bbox predict_by_feat _predict_by_feat_single '
    'refine_bboxes _refine_roi'
).split()
"""Methods between a classifier and its loss, or its probabilities."""


def _classes(names: str) -> tuple[type, ...]:
    modules = (detectors, roi_heads, dense_heads)
    return tuple(
        next(getattr(m, name) for m in modules if hasattr(m, name))
        for name in names.split()
    )


DETECTORS = (
    SingleStageInstanceSegmentor,
    *_classes(
        'BaseDetector SingleStageDetector TwoStageDetector '
        'DetectionTransformer TwoStagePanopticSegmentor TridentFasterRCNN'
    ),
)

ROI_CLASSES: tuple[type, ...] = (
    *DETECTORS,
    *_classes(
        'BaseRoIHead StandardRoIHead CascadeRoIHead HybridTaskCascadeRoIHead '
        'SCNetRoIHead DynamicRoIHead GridRoIHead TridentRoIHead BBoxHead'
    ),
    LongTailBBoxHeadMixin,
    LongTailRoIHeadMixin,
)
"""Call a loss as mmdet's protocol for ``custom_cls_channels`` has it."""

DENSE_CLASSES: tuple[type, ...] = (
    *DETECTORS,
    BaseDenseHead,
    *_classes(
        'AnchorHead ATSSHead DDODHead YOLOFHead AnchorFreeHead FCOSHead '
        'CondInstBboxHead FoveaHead RepPointsHead DETRHead DINOHead '
        'ConditionalDETRHead DABDETRHead DeformableDETRHead BaseRoIHead '
        'CascadeRoIHead SparseRoIHead BBoxHead DIIHead'
    ),
    LongTailDeformableDETRHead,
)
"""Call a loss with C columns of sigmoids, and predict by the sigmoid."""

QUALITY_CLASSES: tuple[type, ...] = (*DENSE_CLASSES, *_classes('GFLHead'))
"""Besides, give the IoU of each positive to a loss that takes it."""

ROI_ADVICE = (
    'use a Shared2FCBBoxHead or another ConvFCBBoxHead in a StandardRoIHead '
    'or CascadeRoIHead, or keep the loss of this head'
)
DENSE_ADVICE = (
    'use a RetinaHead, ATSSHead, FCOSHead, LongTailDeformableDETRHead or '
    'DINOHead, or keep the loss of this head'
)

QUALITY_ADVICE = 'use a GFLHead or DINOHead, or keep the loss of this head'


def unsupported_method(
    kind: type, supported: tuple[type, ...]
) -> tuple[type, str] | None:
    """Return the first class and method that are not known to work.

    ``supported`` is ``ROI_CLASSES``, ``DENSE_CLASSES`` or
    ``QUALITY_CLASSES``.
    """
    for parent in kind.__mro__:
        if vars(parent).get('supports_long_tail_losses'):
            return None
        for method in METHODS:
            if method in vars(parent) and parent not in supported:
                return parent, method
    return None


def check_head_support(model: nn.Module) -> None:
    """Check the place of each long-tail loss in a detector, not wrapped.

    Models that are not mmdet's, such as image classifiers, are not checked.

    Raises:
        LongTailError: Naming the head, and the head or loss to use instead.
    """
    if not isinstance(model, detectors.BaseDetector | mot.BaseMOTModel):
        return
    for name, loss in model.named_modules():
        if isinstance(loss, LongTailLoss):
            path, _, attribute = name.rpartition('.')
            owners = [model]
            for part in path.split('.') if path else ():
                owners.append(owners[-1].get_submodule(part))
            place = f'model.{path} ({type(owners[-1]).__name__})'
            for problem in _problems(owners, attribute, loss):
                raise LongTailError(f'{place}: {problem}')


def check_score_thr(model: nn.Module) -> None:
    """Warn, once, of a score threshold that drops tail classes.

    Raises:
        LongTailError: If the threshold is no number.
    """
    test_cfg = getattr(model, 'test_cfg', None) or {}
    key = 'model.test_cfg.rcnn' if test_cfg.get('rcnn') else 'model.test_cfg'
    score_thr = (test_cfg.get('rcnn') or test_cfg).get('score_thr', 0)
    check_numbers('model.test_cfg', '[0, inf)', score_thr=score_thr)
    has_loss = any(isinstance(m, LongTailLoss) for m in model.modules())
    if has_loss and score_thr > LARGEST_SCORE_THR:
        warn_once(
            f'{key}.score_thr={score_thr} drops most '
            'detections of tail classes, whose scores are small: set '
            'score_thr=1e-4 and max_per_img=300'
        )


def _problems(
    owners: list[Any], attribute: str, loss: LongTailLoss
) -> Iterator[str]:
    """Yield the reasons against a loss: first the head, last the width."""
    head, name = owners[-1], type(loss).__name__
    is_roi_head = isinstance(head, BBoxHead) and not isinstance(head, DIIHead)
    # Only losses for dense heads leave the width of the classifier alone.
    is_for_roi_heads = loss.custom_cls_channels
    supported = ROI_CLASSES if is_for_roi_heads else DENSE_CLASSES
    advice = ROI_ADVICE if is_for_roi_heads else DENSE_ADVICE
    if loss.takes_quality:
        supported, advice = QUALITY_CLASSES, QUALITY_ADVICE
    if attribute != 'loss_cls':
        yield f'{name} is its {attribute}, but must be a loss_cls; {advice}'
    if not is_for_roi_heads and not loss.use_sigmoid:
        yield (
            f'{name} is for image classification; a detector takes '
            'SoftmaxEqualizationLoss in a RoI head'
        )
    if is_for_roi_heads and not is_roi_head:
        if unsupported_method(type(head), DENSE_CLASSES) is None:
            advice = f'use {loss.loss_for_dense_heads} with use_sigmoid=True'
        yield f'{name} is for RoI heads; {advice}'
    if is_roi_head and not is_for_roi_heads:
        yield (
            f'{name} is for dense and DETR heads; use '
            f'{loss.loss_for_roi_heads} in a RoI head'
        )
    if loss.needs_verified_classes and not any(
        isinstance(owner, LongTailRoIHeadMixin) for owner in owners
    ):
        yield (
            f'{name} needs image-level labels, which only the RoI heads of '
            "this package give to a loss: set roi_head.type='LongTail"
            "StandardRoIHead' (docs/image_level_labels.md), or use "
            'FederatedLoss'
        )
    for owner in owners:
        unsupported = unsupported_method(type(owner), supported)
        if unsupported is not None:
            kind, method = unsupported
            if not kind.__module__.startswith('mmdet.'):
                advice += (
                    '; if it calls the loss with (cls_score, labels, '
                    'label_weights) and predicts by its activation, set '
                    f'supports_long_tail_losses = True in {kind.__name__}'
                )
            yield (
                f'{name} is not known to work with {kind.__name__}.{method}, '
                f'which trains or predicts in its own way; {advice}'
            )
        yield from _problems_around(owner, loss)
    fc_cls = getattr(head, 'fc_cls', None)
    found = head.cls_out_channels if fc_cls is None else len(fc_cls.weight)
    expected = loss.get_cls_channels(loss.num_classes)
    if not is_for_roi_heads and found == expected + 1:
        yield (
            f'its classifier has {found} channels, but {name} needs '
            f'{expected}: set use_sigmoid=True in loss_cls, so that the head '
            'builds no channel for background'
        )
    if found != expected:
        way_out = 'set the same num_classes in head and loss_cls'
        if found != loss.get_cls_channels(head.num_classes):
            way_out += (
                ', or use a head that takes its channels from the loss, such '
                'as Shared2FCBBoxHead'
            )
        yield (
            f'its classifier has {found} channels, but {name} with '
            f'num_classes={loss.num_classes} needs {expected}; {way_out}'
        )


def samplers_of(sampler: Any) -> set[Any]:
    """Return the parts of a CombinedSampler, or a sampler itself."""
    keys = ('pos_sampler', 'neg_sampler')
    return {getattr(sampler, key, sampler) for key in keys}


def _problems_around(owner: Any, loss: LongTailLoss) -> Iterator[str]:
    """Yield the reasons of the modules around that read scores or losses."""
    name = type(loss).__name__
    keys = ('bbox_assigner', 'assigner', 'bbox_sampler')
    found = [getattr(owner, key, None) for key in keys]
    for each in chain(*(x if isinstance(x, list) else [x] for x in found)):
        costs = getattr(each, 'match_costs', ())
        if any(isinstance(cost, ClassificationCost) for cost in costs):
            yield (
                'its assigner matches by ClassificationCost, a softmax, but '
                f'{name} trains sigmoids; set match_costs to '
                "dict(type='FocalLossCost', weight=2.0) in the place of "
                'ClassificationCost'
            )
        for sampler in samplers_of(each):
            if isinstance(sampler, ScoreHLRSampler) or (
                isinstance(sampler, OHEMSampler) and loss.normalizer == 'own'
            ):
                yield (
                    f'{type(sampler).__name__} samples RoIs by one loss value '
                    f'per row of a softmax, which {name} does not have; use '
                    'RandomSampler'
                )
            if isinstance(sampler, OHEMSampler) and isinstance(
                loss, OnlineState
            ):
                yield (
                    f'OHEMSampler calls the loss on all proposals, and {name} '
                    'would count them as training rows; use RandomSampler'
                )
            if (
                isinstance(sampler, OHEMSampler)
                and isinstance(owner, LongTailRoIHeadMixin)
                and loss.uses_verified_classes
            ):
                yield (
                    f'OHEMSampler calls {name} without the images of the '
                    'proposals, whose labels it needs; use RandomSampler'
                )
    method = getattr(type(owner), 'loss_by_feat', None)
    if (
        getattr(owner, 'as_two_stage', False)
        and method is dense_heads.DeformableDETRHead.loss_by_feat
    ):
        yield (
            f'its encoder would give {name} label 0 for every object; set '
            "bbox_head.type='LongTailDeformableDETRHead', whose encoder keeps "
            'a plain loss'
        )

"""Which heads a long-tail loss works in, and why the others are refused.

A loss relies on code of the head that it cannot see: how wide the classifier
is, what the loss is called with, what turns scores into probabilities. A
class that has code of its own for one of these (a seam) is refused unless
that code was looked at and tried; a class that only inherits is as good as
what it inherits. docs/support.md has the result for mmdet's own models.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmdet.models.dense_heads import (
    AnchorFreeHead,
    AnchorHead,
    ATSSHead,
    CondInstBboxHead,
    ConditionalDETRHead,
    DABDETRHead,
    DDODHead,
    DeformableDETRHead,
    DETRHead,
    DINOHead,
    FCOSHead,
    FoveaHead,
    RepPointsHead,
    YOLOFHead,
)
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.detectors import (
    BaseDetector,
    DetectionTransformer,
    SingleStageDetector,
    TridentFasterRCNN,
    TwoStageDetector,
    TwoStagePanopticSegmentor,
)
from mmdet.models.detectors.single_stage_instance_seg import (
    SingleStageInstanceSegmentor,
)
from mmdet.models.mot import BaseMOTModel
from mmdet.models.roi_heads import (
    BaseRoIHead,
    CascadeRoIHead,
    DynamicRoIHead,
    GridRoIHead,
    HybridTaskCascadeRoIHead,
    SCNetRoIHead,
    SparseRoIHead,
    StandardRoIHead,
    TridentRoIHead,
)
from mmdet.models.roi_heads.bbox_heads import BBoxHead, DIIHead
from mmdet.models.task_modules.assigners import ClassificationCost
from mmdet.models.task_modules.samplers import OHEMSampler, ScoreHLRSampler
from torch import nn

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.dense_heads import LongTailDeformableDETRHead
from mmdet_longtail.models.losses import LongTailLoss
from mmdet_longtail.models.roi_heads.bbox_heads.long_tail_bbox_head import (
    LongTailBBoxHeadMixin,
)
from mmdet_longtail.models.roi_heads.long_tail_roi_head import (
    LongTailRoIHeadMixin,
)

SEAMS = (
    'loss',
    'loss_and_predict',
    'loss_and_target',
    'loss_by_feat',
    'loss_by_feat_single',
    'bbox_loss',
    'predict',
    'predict_bbox',
    'predict_by_feat',
    '_predict_by_feat_single',
    'refine_bboxes',
    '_refine_roi',
)
"""Methods between a classifier and its loss, or its probabilities."""

DETECTORS = (
    BaseDetector,
    SingleStageDetector,
    SingleStageInstanceSegmentor,
    TwoStageDetector,
    TwoStagePanopticSegmentor,
    DetectionTransformer,
    TridentFasterRCNN,
)

ROI_CLASSES: tuple[type, ...] = (
    *DETECTORS,
    BaseRoIHead,
    StandardRoIHead,
    CascadeRoIHead,
    HybridTaskCascadeRoIHead,
    SCNetRoIHead,
    DynamicRoIHead,
    GridRoIHead,
    TridentRoIHead,
    BBoxHead,
    LongTailBBoxHeadMixin,
    LongTailRoIHeadMixin,
)
"""Keep mmdet's protocol for a loss that says how wide its classifier is."""

DENSE_CLASSES: tuple[type, ...] = (
    *DETECTORS,
    BaseDenseHead,
    AnchorHead,
    ATSSHead,
    DDODHead,
    YOLOFHead,
    AnchorFreeHead,
    FCOSHead,
    CondInstBboxHead,
    FoveaHead,
    RepPointsHead,
    DETRHead,
    ConditionalDETRHead,
    DABDETRHead,
    DeformableDETRHead,
    LongTailDeformableDETRHead,
    DINOHead,
    BaseRoIHead,
    CascadeRoIHead,
    SparseRoIHead,
    BBoxHead,
    DIIHead,
)
"""Give a loss C sigmoid columns and labels, and predict with the sigmoid."""


def foreign_seam(
    kind: type, known: tuple[type, ...]
) -> tuple[type, str] | None:
    """The first class with code of its own that is not among the known.

    Args:
        kind (type): Class of a head or detector.
        known (tuple[type, ...]): ``ROI_CLASSES`` or ``DENSE_CLASSES``.

    Returns:
        tuple[type, str] or None: That class and the method; None if all the
        code that counts is known.
    """
    for parent in kind.__mro__:
        for seam in SEAMS:
            if seam in vars(parent) and parent not in known:
                return parent, seam
    return None


def check_head_support(model: nn.Module) -> None:
    """Check the place of every long-tail loss in a detector.

    Models that are not mmdet's, such as image classifiers, have no such
    places and are left alone.

    Args:
        model (nn.Module): The built model, not wrapped.

    Raises:
        LongTailError: Naming the head, and what to use in its place.
    """
    if not isinstance(model, (BaseDetector, BaseMOTModel)):
        return
    for name, module in model.named_modules():
        if isinstance(module, LongTailLoss):
            _check_place(model, name, module)


def _check_place(model: nn.Module, name: str, loss: LongTailLoss) -> None:
    """Check the head and everything around it, from the outside in."""
    path, _, attribute = name.rpartition('.')
    owners = list(_owners(model, path))
    head = owners[-1]
    loss_name = type(loss).__name__
    place = f'model.{path} ({type(head).__name__})'
    is_for_roi_heads = loss.custom_cls_channels
    if is_for_roi_heads:
        known = ROI_CLASSES
        way_out = (
            'use a Shared2FCBBoxHead or another ConvFCBBoxHead in a '
            'StandardRoIHead or CascadeRoIHead'
        )
    else:
        known = DENSE_CLASSES
        way_out = (
            'use a RetinaHead, ATSSHead, FCOSHead, '
            'LongTailDeformableDETRHead or DINOHead'
        )
    way_out += ', or keep the loss of this head'

    if attribute != 'loss_cls':
        raise LongTailError(
            f'{place}: {loss_name} is its {attribute}, but can only be a '
            f'loss_cls; {way_out}'
        )
    if not is_for_roi_heads and not loss.use_sigmoid:
        raise LongTailError(
            f'{place}: {loss_name} is for image classification; a detector '
            'takes SoftmaxEqualizationLoss in a RoI head'
        )
    if is_for_roi_heads and not _is_roi_head(head):
        dense = 'DenseEqualizationLoss with use_sigmoid=True'
        has_dense = foreign_seam(type(head), DENSE_CLASSES) is None
        raise LongTailError(
            f'{place}: {loss_name} is for RoI heads; '
            + (f'use {dense}, the one for this head' if has_dense else way_out)
        )
    if not is_for_roi_heads and _is_roi_head(head):
        raise LongTailError(
            f'{place}: {loss_name} is for dense and DETR heads; use '
            'EqualizationLoss in a RoI head'
        )
    for owner in owners:
        found = foreign_seam(type(owner), known)
        if found is not None:
            raise LongTailError(
                f'{place}: {loss_name} is not known to work with '
                f'{found[0].__name__}.{found[1]}, which trains or predicts '
                f'in its own way; {way_out}'
            )
        _check_parts(place, loss, owner)
    _check_width(place, loss, head)


def _owners(model: nn.Module, path: str) -> Iterator[nn.Module]:
    """The model and the modules on the way to the head at that path."""
    yield model
    parts = path.split('.') if path else []
    for end in range(1, len(parts) + 1):
        yield model.get_submodule('.'.join(parts[:end]))


def _is_roi_head(head: nn.Module) -> bool:
    return isinstance(head, BBoxHead) and not isinstance(head, DIIHead)


def _check_parts(place: str, loss: LongTailLoss, owner: Any) -> None:
    """Check what else reads the scores: matching, sampling, the encoder."""
    loss_name = type(loss).__name__
    assigners = getattr(owner, 'bbox_assigner', None) or getattr(
        owner, 'assigner', None
    )
    if not isinstance(assigners, list):
        assigners = [assigners]
    for assigner in assigners:
        for cost in getattr(assigner, 'match_costs', ()):
            if isinstance(cost, ClassificationCost):
                raise LongTailError(
                    f'{place}: its assigner matches by ClassificationCost, '
                    f'a softmax, but {loss_name} trains sigmoids; set '
                    "match_costs to dict(type='FocalLossCost', weight=2.0) "
                    'in the place of ClassificationCost'
                )
    samplers = getattr(owner, 'bbox_sampler', None)
    if not isinstance(samplers, list):
        samplers = [samplers]
    for sampler in samplers:
        if isinstance(sampler, ScoreHLRSampler) or (
            isinstance(sampler, OHEMSampler) and loss.normalizer == 'own'
        ):
            raise LongTailError(
                f'{place}: {type(sampler).__name__} picks RoIs by one loss '
                f'value a row of a softmax, which {loss_name} does not '
                'have; use RandomSampler'
            )
    if (
        getattr(owner, 'as_two_stage', False)
        and getattr(type(owner), 'loss_by_feat', None)
        is DeformableDETRHead.loss_by_feat
    ):
        raise LongTailError(
            f'{place}: its encoder would give {loss_name} label 0 for every '
            "object; set bbox_head.type='LongTailDeformableDETRHead', whose "
            'encoder keeps a plain loss'
        )


def _check_width(place: str, loss: LongTailLoss, head: Any) -> None:
    """Compare the classifier that was built with the one that is needed."""
    fc_cls = getattr(head, 'fc_cls', None)
    found = head.cls_out_channels if fc_cls is None else len(fc_cls.weight)
    expected = loss.get_cls_channels(loss.num_classes)
    if found != expected:
        raise LongTailError(
            f'{place}: its classifier has {found} channels, but '
            f'{type(loss).__name__} with num_classes={loss.num_classes} '
            f'needs {expected}; set the same num_classes in head and loss_cls'
            ', or use a head that asks the loss (Shared2FCBBoxHead does)'
        )

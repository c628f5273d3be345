"""Record what the classifier of a frozen detector sees.

Shapes: T stages of the RoI head, N RoIs of a batch, F inputs of ``fc_cls``,
G objects and P proposals of an image.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead, ConvFCBBoxHead
from mmdet.models.task_modules import AssignResult, RandomSampler
from mmdet.models.task_modules.assigners import MaxIoUAssigner
from mmdet.models.task_modules.samplers import OHEMSampler, ScoreHLRSampler
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.roi_heads.long_tail_roi_head import (
    LongTailRoIHeadMixin,
)
from mmdet_longtail.models.utils.bbox_heads import classifier_heads
from mmdet_longtail.models.utils.frozen_losses import KNOWN_LOSSES
from mmdet_longtail.utils.replacing import replaced

ALL = 2 * 10**9  # more than there are RoIs


def as_list(module: Any) -> list[Any]:
    """Return the modules of all stages, of a cascade or of a plain head."""
    many = isinstance(module, list | nn.ModuleList)
    return list(module) if many else [module]


def check_cacheable(model: nn.Module) -> None:
    """Check that cached features can train and test a detector's classifier.

    Raises:
        LongTailError: With the first part that prevents it.
    """
    heads = classifier_heads(model)
    roi_head: Any = model.roi_head
    problem = _find_problem(roi_head, list(heads.values()))
    if problem:
        raise LongTailError(
            f'FeatureCacheHook: {problem}; train without the hook'
        )


def _find_problem(roi_head: Any, heads: Sequence[Any]) -> str:
    kind = type(roi_head)
    losses = (
        StandardRoIHead.loss,
        CascadeRoIHead.loss,
        LongTailRoIHeadMixin.loss,
    )
    base = CascadeRoIHead if len(heads) > 1 else StandardRoIHead
    same = ('bbox_loss', '_bbox_forward', 'predict_bbox')
    if (
        not isinstance(roi_head, base)
        or kind.loss not in losses
        or any(getattr(kind, n) is not getattr(base, n) for n in same)
    ):
        return (
            f'{kind.__name__} trains or predicts in its own way; the cache '
            'supports StandardRoIHead and CascadeRoIHead'
        )
    for head in heads:
        name = type(head).__name__
        forwards = (BBoxHead.forward, ConvFCBBoxHead.forward)
        if (
            type(head).forward not in forwards
            or type(head).loss not in KNOWN_LOSSES
        ):
            return (
                f'{name} computes its scores or its loss in its own way; the '
                'cache supports Shared2FCBBoxHead and its relatives'
            )
    for sampler in as_list(roi_head.bbox_sampler):
        parts = [sampler]
        parts += [
            getattr(sampler, f'{x}_sampler', None) for x in ('pos', 'neg')
        ]
        if any(isinstance(p, OHEMSampler | ScoreHLRSampler) for p in parts):
            return (
                f'{type(sampler).__name__} samples RoIs by the loss of the '
                'classifier that is trained'
            )
    if any(not head.reg_class_agnostic for head in heads[:-1]):
        return (
            'the boxes of the later stages depend on the class scores of the '
            'earlier ones (reg_class_agnostic=False)'
        )
    for assigner in as_list(roi_head.bbox_assigner)[1:]:
        if (
            not isinstance(assigner, MaxIoUAssigner)
            or assigner.match_low_quality
        ):
            return (
                f'{type(assigner).__name__} of a later stage assigns a RoI '
                'by the others (match_low_quality)'
            )
    return ''


def shares_features(head: Any) -> bool:
    """Check that ``fc_cls`` and ``fc_reg`` have the same inputs."""
    branches = ('cls_convs', 'cls_fcs', 'reg_convs', 'reg_fcs')
    return not head.with_reg or not any(
        len(getattr(head, name, ())) for name in branches
    )


# -- training --------------------------------------------------------------


@dataclass
class _Candidates:
    """All RoIs of an image in one stage, of which its sampler draws.

    A candidate is one of the objects, where the sampler adds them, and then
    the proposals. Row r of the image's features is the r-th that is not
    ignored, positives first.
    """

    assigned: AssignResult  # of the P proposals
    priors: Tensor  # (P, 4)
    objects: InstanceData
    num_objects: int  # G, or 0
    row: Tensor  # (G + P,), -1 if ignored
    successor: Tensor  # (G + P,), the proposal of the next stage, or -1

    def draw(self, sampler: Any, pool: Tensor) -> tuple[Tensor, Tensor]:
        """Draw rows, and the pool of the next stage, from a pool (p,)."""
        assigned = copy.copy(self.assigned)
        for name in ('gt_inds', 'max_overlaps', 'labels'):
            setattr(assigned, name, getattr(assigned, name)[pool])
        proposals = InstanceData(priors=self.priors[pool])
        result = sampler.sample(assigned, proposals, self.objects)
        chosen = torch.cat([result.pos_inds, result.neg_inds])
        G = self.num_objects
        is_object = chosen < G
        candidates = chosen.clone()
        candidates[~is_object] = G + pool[chosen[~is_object] - G]
        return self.row[candidates], self.successor[candidates[~is_object]]


def _no_candidates() -> _Candidates:
    nothing = torch.zeros(0, dtype=torch.int64)
    boxes = torch.zeros(0, 4)
    return _Candidates(
        AssignResult(0, nothing, torch.zeros(0), nothing),
        boxes,
        InstanceData(bboxes=boxes, labels=nothing),
        0,
        nothing,
        nothing,
    )


class _AllRoIs(RandomSampler):
    """Sample all RoIs that are not ignored, and keep them."""

    def __init__(self, sampler: Any) -> None:
        adds = getattr(sampler, 'add_gt_as_proposals', False)
        super().__init__(ALL, 0.5, add_gt_as_proposals=adds)
        self.images: list[_Candidates] = []

    def sample(
        self,
        assign_result: AssignResult,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        **kwargs: Any,
    ) -> Any:
        assigned = copy.copy(assign_result)  # without added objects
        result = super().sample(assign_result, pred_instances, gt_instances)
        for name in ('gt_inds', 'max_overlaps', 'labels'):
            setattr(assigned, name, getattr(assigned, name).cpu())
        chosen = torch.cat([result.pos_inds, result.neg_inds]).cpu()
        G = len(gt_instances) if self.add_gt_as_proposals else 0
        row, successor = torch.full((2, G + assigned.num_preds), -1)
        row[chosen] = torch.arange(len(chosen))
        proposals = chosen[chosen >= G]
        successor[proposals] = torch.arange(len(proposals))
        self.images.append(
            _Candidates(
                assigned,
                pred_instances.priors.cpu(),
                gt_instances.cpu(),
                G,
                row,
                successor,
            )
        )
        return result


@dataclass
class RecordedStage:
    """The RoIs of an image that are kept, in one stage.

    Attributes:
        features (Tensor): Inputs of ``fc_cls``, (U, F).
        labels (Tensor): Labels, (U,).
        label_weights (Tensor): Label weights, (U,).
        rows (list[Tensor]): Per sample, which of the U RoIs it has, (n,).
    """

    features: Tensor
    labels: Tensor
    label_weights: Tensor
    rows: list[Tensor] = field(default_factory=list)

    def keep(self, num_classes: int, max_negatives: int | None) -> None:
        """Keep only RoIs of a sample, and this many of the negatives.

        Each negative that is not kept is replaced in the samples by one that
        is, such that all stand for equally many.
        """
        used = torch.cat(self.rows).unique()
        negatives = used[self.labels[used] == num_classes]
        stand_in = torch.arange(len(self.labels))
        if max_negatives is not None and len(negatives) > max_negatives:
            order = negatives[torch.randperm(len(negatives))]
            turns = torch.arange(len(order)) % max_negatives
            stand_in[order] = order[turns]
            used = stand_in[used].unique()
        self.rows = [torch.searchsorted(used, stand_in[r]) for r in self.rows]
        self.features = self.features[used]
        self.labels = self.labels[used]
        self.label_weights = self.label_weights[used]


class _HeadRecord:
    """The calls of a bbox head and of its loss, in one batch."""

    def __init__(self) -> None:
        self.features: Tensor | None = None  # (N, F)
        self.box_features: Tensor | None = None
        self.labels = torch.empty(0, dtype=torch.int64)
        self.label_weights = torch.empty(0)

    def loss(
        self,
        cls_score: Tensor,
        bbox_pred: Tensor | None,
        rois: Tensor,
        labels: Tensor,
        label_weights: Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> dict[str, Tensor]:
        self.labels, self.label_weights = labels.cpu(), label_weights.cpu()
        return {}

    def keep_features(self, layer: nn.Module, args: tuple[Tensor]) -> None:
        self.features = args[0]

    def keep_box_features(self, layer: nn.Module, args: tuple[Tensor]) -> None:
        self.box_features = args[0]


@contextmanager
def _recording(heads: Sequence[Any]) -> Iterator[list[_HeadRecord]]:
    """Record the inputs of the classifiers, and keep losses from changing."""
    records = [_HeadRecord() for _ in heads]
    with ExitStack() as stack:
        for head, record in zip(heads, records, strict=True):
            layers = [(head.fc_cls, record.keep_features)]
            if head.with_reg:
                layers.append((head.fc_reg, record.keep_box_features))
            for layer, keep in layers:
                stack.callback(layer.register_forward_pre_hook(keep).remove)
            stack.enter_context(replaced(head, loss=record.loss))
        yield records


def _features_of(
    head: Any, record: _HeadRecord, of_boxes: bool = False
) -> Tensor:
    """Return the recorded inputs (N, F), also of a batch without RoIs."""
    features = record.box_features if of_boxes else record.features
    layer = head.fc_reg if of_boxes else head.fc_cls
    if features is None:
        return torch.zeros(0, layer.in_features)
    return features.cpu()


@torch.no_grad()
def record_training(
    model: Any,
    data: dict[str, Any],
    num_samples: int,
    max_negatives: int | None = None,
) -> list[list[RecordedStage]]:
    """Record the RoIs that a batch trains the classifiers with.

    The features of all RoIs are computed once. The samplers of the RoI head
    draw from them several times.

    Args:
        model (nn.Module): The detector, not wrapped, in training mode. Only
            its classifiers train.
        data (dict): Batch of a data loader.
        num_samples (int): Number of draws.
        max_negatives (int, optional): See `RecordedStage.keep`.

    Returns:
        list[list[RecordedStage]]: Stages of each image, on the CPU.
    """
    heads = list(classifier_heads(model).values())
    roi_head = model.roi_head
    own = as_list(roi_head.bbox_sampler)
    samplers: Any = list(map(_AllRoIs, own))
    replacing: Any = samplers if len(heads) > 1 else samplers[0]
    data = model.data_preprocessor(data, True)
    with _recording(heads) as records:
        with replaced(roi_head, bbox_sampler=replacing):
            model(**data, mode='loss')
    by_stage = [
        _split(head, record, sampler.images, len(data['data_samples']))
        for head, record, sampler in zip(heads, records, samplers)
    ]
    recorded = []
    for stages in zip(*by_stage):  # of an image
        for _ in range(num_samples):
            pool = torch.arange(len(stages[0][1].priors))
            for (stage, candidates), sampler in zip(stages, own):
                rows, pool = candidates.draw(sampler, pool)
                stage.rows.append(rows)
        for stage, _ in stages:
            stage.keep(heads[0].num_classes, max_negatives)
        recorded.append([stage for stage, _ in stages])
    return recorded


def _split(
    head: Any,
    record: _HeadRecord,
    images: Sequence[_Candidates],
    num_images: int,
) -> list[tuple[RecordedStage, _Candidates]]:
    """Split the record of a stage by image."""
    # mmdet leaves out the later stages of a batch without RoIs.
    images = images or [_no_candidates()] * num_images
    sizes = [int((image.row >= 0).sum()) for image in images]
    parts = (
        _features_of(head, record).split(sizes),
        record.labels.split(sizes),
        record.label_weights.split(sizes),
    )
    return [
        (RecordedStage(*tensors), image)
        for tensors, image in zip(zip(*parts), images)
    ]


# -- tests -----------------------------------------------------------------


@dataclass
class RecordedProposals:
    """The proposals of an image in a test.

    Attributes:
        features (list[Tensor]): Inputs of ``fc_cls``, (n, F) by stage.
        boxes (Tensor): RoIs of the last stage, (n, 4).
        box_features (Tensor, optional): Inputs of the last ``fc_reg``, (n,
            F), where they are not those of ``fc_cls``.
    """

    features: list[Tensor]
    boxes: Tensor
    box_features: Tensor | None


@torch.no_grad()
def record_proposals(
    model: Any, data: dict[str, Any]
) -> tuple[list[RecordedProposals], Any]:
    """Record the proposals of a batch in a test.

    Args:
        model (nn.Module): The detector, not wrapped, in eval mode.
        data (dict): Batch of a data loader.

    Returns:
        tuple[list[RecordedProposals], list[DetDataSample]]: One per image,
        on the CPU.
    """
    heads = list(classifier_heads(model).values())
    data = model.data_preprocessor(data, False)
    kept: list[Tensor] = []

    def keep_rois(rois: tuple[Tensor], **kwargs: Any) -> list[InstanceData]:
        kept.extend(rois)
        return [
            InstanceData(
                bboxes=each.new_zeros(0, 4),
                scores=each.new_zeros(0),
                labels=each.new_zeros(0, dtype=torch.long),
            )
            for each in rois
        ]

    with _recording(heads) as records:
        with replaced(heads[-1], predict_by_feat=keep_rois):
            model(**data, mode='predict')
    samples = data['data_samples']
    rois = kept or [torch.zeros(0, 5) for _ in samples]
    sizes = list(map(len, rois))
    features = [
        _features_of(head, record).split(sizes)
        for head, record in zip(heads, records)
    ]
    box_features: Sequence[Tensor | None] = [None] * len(samples)
    if not shares_features(heads[-1]):
        box_features = _features_of(heads[-1], records[-1], True).split(sizes)
    images = [
        RecordedProposals(list(stages), each[:, 1:].cpu(), own)
        for stages, each, own in zip(zip(*features), rois, box_features)
    ]
    return images, samples

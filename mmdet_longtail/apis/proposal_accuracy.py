"""How many of a detector's proposals its classifier gets right.

Li et al., Overcoming Classifier Imbalance for Long-tail Object Detection with
Balanced Group Softmax, CVPR 2020, https://arxiv.org/abs/2006.10408, Table 1,
columns ACC.

Shapes: N proposals, C classes (foreground only). Labels: 0..C-1 foreground,
C background.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmdet.models.detectors import TwoStageDetector
from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
from mmdet.models.task_modules.assigners import MaxIoUAssigner
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet_longtail.errors import LongTailError
from mmdet_longtail.models.utils.bbox_heads import classifier_heads
from mmdet_longtail.structures.class_statistics import ClassStatistics

IOU_THRESHOLD = 0.5


class ProposalAccuracy:
    """Counts the test proposals whose most probable class is their own.

    A proposal has the label of the object that it overlaps most, if their
    IoU is at least 0.5, and is background otherwise. As in mmdet's training,
    one with more than half of its area in an ignored box (a crowd) does not
    count. In an image that was not checked for all classes, as in LVIS, what
    overlaps no annotation is background.

    Probabilities are those that the detector would make its detections of,
    before NMS and any threshold. A cascade has them of its refined boxes,
    from the mean score of all stages; the label is that of the proposal
    which the boxes come from.

    Args:
        model (nn.Module): A detector, not wrapped, in eval mode.

    Raises:
        LongTailError: If it does not classify proposals of an RPN as
            mmdet's two-stage detectors do.
    """

    def __init__(self, model: nn.Module) -> None:
        self.head: Any = [*classifier_heads(model).values()][-1]
        check_classifies_proposals(model)
        self.model: Any = model
        self.assigner = MaxIoUAssigner(
            pos_iou_thr=IOU_THRESHOLD,
            neg_iou_thr=IOU_THRESHOLD,
            min_pos_iou=IOU_THRESHOLD,
            ignore_iof_thr=0.5,
            match_low_quality=False,
        )
        num_labels = self.head.num_classes + 1
        self.proposals = np.zeros(num_labels, np.int64)
        """Proposals of each label (C + 1,)."""
        self.correct = np.zeros(num_labels, np.int64)
        """Those whose label is the most probable one (C + 1,)."""
        self.correct_class = np.zeros(num_labels, np.int64)
        """Those whose label is the most probable class, whatever the
        probability of background (C + 1,); 0 of background."""
        self.predicts_background = False
        """Whether background had a probability above 0 anywhere."""

    @torch.no_grad()
    def add(self, data: dict[str, Any]) -> None:
        """Take in a batch of images with their boxes.

        Args:
            data (dict): ``inputs`` and ``data_samples`` of a data loader,
                whose boxes are in the scale of the inputs.
        """
        data = self.model.data_preprocessor(data, training=False)
        x = self.model.extract_feat(data['inputs'])
        proposals = self.model.rpn_head.predict(
            x, data['data_samples'], rescale=False
        )
        probs = self._predict(x, proposals, data['data_samples'])
        for one, p, sample in zip(proposals, probs, data['data_samples']):
            self._count(self._label(one, sample), p)

    def _predict(
        self, x: tuple[Tensor, ...], proposals: Any, samples: Any
    ) -> list[Tensor]:
        """Probabilities (N, C + 1) of each image's proposals."""
        roi_head = self.model.roi_head
        context = {}
        if getattr(roi_head, 'with_semantic', False):
            context['semantic_feat'] = roi_head.semantic_head(x)[1]
        if getattr(roi_head, 'with_glbctx', False):
            context['glbctx_feat'] = roi_head.glbctx_head(x)[1]
        # Without a config mmdet stops before NMS.
        results = roi_head.predict_bbox(
            x=x,
            batch_img_metas=[sample.metainfo for sample in samples],
            rpn_results_list=proposals,
            rcnn_test_cfg=None,
            **context,
        )
        return [result.scores for result in results]

    def _label(self, proposals: Any, sample: Any) -> Tensor:
        """Label of each proposal (N,), -1 for one that does not count."""
        assigned = self.assigner.assign(
            InstanceData(priors=proposals.bboxes),
            sample.gt_instances,
            sample.get('ignored_instances'),
        )
        C = self.head.num_classes
        is_background = assigned.gt_inds == 0
        return torch.where(is_background, C, assigned.labels)

    def _count(self, labels: Tensor, probs: Tensor) -> None:
        is_counted = labels >= 0
        y, probs = labels[is_counted], probs[is_counted]
        if len(y) == 0:
            return
        C = self.head.num_classes

        def count(labels: Tensor) -> np.ndarray:
            return labels.bincount(minlength=C + 1).cpu().numpy()

        self.proposals += count(y)
        self.correct += count(y[probs.argmax(1) == y])
        self.correct_class += count(y[probs[:, :C].argmax(1) == y])
        self.predicts_background |= bool((probs[:, C] > 0).any())

    def over(self, members: np.ndarray) -> dict[str, float]:
        """Compute the accuracy over the proposals of some labels.

        Args:
            members (np.ndarray): (C + 1,) bool, the labels.

        Returns:
            dict[str, float]: ``proposals``, their number; ``accuracy`` and
            ``class_accuracy``, the share of them in ``correct`` and
            ``correct_class``, percent: nan without proposals, and of
            classes also where background is a member.
        """
        num_proposals = int(self.proposals[members].sum())
        accuracy = class_accuracy = np.nan
        if num_proposals > 0:
            accuracy = 100 * self.correct[members].sum() / num_proposals
        if num_proposals > 0 and not members[-1]:
            class_accuracy = (
                100 * self.correct_class[members].sum() / num_proposals
            )
        return {
            'proposals': num_proposals,
            'accuracy': float(accuracy),
            'class_accuracy': float(class_accuracy),
        }


def check_classifies_proposals(model: Any) -> None:
    """Check that a detector goes the way that `ProposalAccuracy` goes.

    Args:
        model (nn.Module): A detector with a classifier in its RoI head.

    Raises:
        LongTailError: If it has no RPN, or a class that it is of has code
            of its own between proposals and probabilities.
    """
    name = type(model).__name__
    way_out = 'use a detector such as FasterRCNN or CascadeRCNN'
    if not getattr(model, 'with_rpn', False):
        raise LongTailError(
            f'model.rpn_head: {name} has none, so it has no proposals of its '
            f'own to look at; {way_out}'
        )
    if type(model).predict is not TwoStageDetector.predict:
        raise LongTailError(
            f'model: {name} predicts in its own way, so its proposals cannot '
            f'be told; {way_out}'
        )
    head = type(model.roi_head)
    known = (StandardRoIHead.predict_bbox, CascadeRoIHead.predict_bbox)
    if head.predict_bbox not in known:
        raise LongTailError(
            f'model.roi_head: {head.__name__} predicts boxes in its own way, '
            f'so what it says of each proposal cannot be told; {way_out}'
        )


def label_groups(
    statistics: ClassStatistics, bin_edges: Sequence[float]
) -> dict[str, np.ndarray]:
    """Return the groups of labels of Table 1, and further ones.

    Args:
        statistics (ClassStatistics): Counts of the training set.
        bin_edges (Sequence[float]): Of the bins by instance_count.

    Returns:
        dict[str, np.ndarray]: (C + 1,) bool each: ``all``, the bins
        (``below_10``, ...), ``background``, and beside the table's
        ``foreground``, ``rare``, ``common`` and ``frequent``.

    Raises:
        LongTailError: If the edges are not positive and rising.
    """
    every = np.ones(len(statistics.class_names), bool)
    bins = statistics.bin_groups(bin_edges)
    by_frequency = statistics.frequency_groups()
    return {
        'all': np.append(every, True),
        **{b.name: np.append(b.members, False) for b in bins},
        'background': np.append(~every, True),
        'foreground': np.append(every, False),
        **{g.name: np.append(g.members, False) for g in by_frequency},
    }

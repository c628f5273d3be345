"""Accuracy of a detector's classifier on its own proposals.

Li et al., Overcoming Classifier Imbalance for Long-tail Object Detection with
Balanced Group Softmax, CVPR 2020, https://arxiv.org/abs/2006.10408, Table 1,
columns ACC.

Shapes: N proposals, C classes (foreground only). Labels: 0..C-1 foreground,
C background.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmdet.models.detectors import TwoStageDetector
from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
from mmdet.models.task_modules.assigners import MaxIoUAssigner
from mmengine.structures import InstanceData
from torch import nn

from mmdet_longtail.errors import check
from mmdet_longtail.models.utils.bbox_heads import classifier_heads
from mmdet_longtail.structures.class_statistics import ClassStatistics

IOU_THRESHOLD = 0.5


class ProposalAccuracy:
    """Count the test proposals whose most probable class is their own.

    The label of a proposal is that of the object with the largest IoU, if
    the IoU is at least 0.5, else background. As in mmdet's training, a
    proposal with more than half of its area in an ignored box (a crowd) does
    not count. In an image that was not checked for all classes, as in LVIS,
    a proposal that overlaps no annotation is background.

    Probabilities are those of the detections, before NMS and any threshold.
    A cascade has probabilities of its refined boxes, from the mean score of
    all stages. The label is that of the proposal before the refinement.

    Args:
        model (nn.Module): A detector, not wrapped, in eval mode.

    Attributes:
        counts (np.ndarray): (3, C + 1) proposals per label: all; those whose
            most probable label is their own; and those whose most probable
            class is their own, whatever the probability of background.
        predicts_background (bool): Whether background had a probability
            above 0 anywhere.

    Raises:
        LongTailError: If the detector has no RPN, or its class has its own
            code between proposals and probabilities.
    """

    def __init__(self, model: nn.Module) -> None:
        [*_, head] = classifier_heads(model).values()
        _check_classifies_proposals(model)
        self.model: Any = model
        self.num_classes: int = head.num_classes
        self.assigner = MaxIoUAssigner(
            pos_iou_thr=IOU_THRESHOLD,
            neg_iou_thr=IOU_THRESHOLD,
            min_pos_iou=IOU_THRESHOLD,
            ignore_iof_thr=0.5,
            match_low_quality=False,
        )
        self.counts = np.zeros((3, self.num_classes + 1), np.int64)
        self.predicts_background = False

    @torch.no_grad()
    def add(self, data: dict[str, Any]) -> None:
        """Count the proposals in a batch of a data loader.

        The boxes of its images are in the scale of the inputs.
        """
        data = self.model.data_preprocessor(data, training=False)
        samples, C = data['data_samples'], self.num_classes
        x = self.model.extract_feat(data['inputs'])
        proposals = self.model.rpn_head.predict(x, samples, rescale=False)
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
        for one, result, sample in zip(proposals, results, samples):
            assigned = self.assigner.assign(
                InstanceData(priors=one.bboxes),
                sample.gt_instances,
                sample.get('ignored_instances'),
            )
            is_background = assigned.gt_inds == 0
            labels = assigned.labels.where(~is_background, C)
            y = labels[labels >= 0]  # (N,)
            probs = result.scores[labels >= 0]  # (N, C + 1)
            correct = y[probs.argmax(1) == y]
            correct_class = y[probs[:, :C].argmax(1) == y]
            for counts, each in zip(self.counts, (y, correct, correct_class)):
                counts += each.bincount(minlength=C + 1).cpu().numpy()
            self.predicts_background |= bool((probs[:, C] > 0).any())

    def over(self, members: np.ndarray) -> tuple[int, float, float]:
        """Compute the accuracy over the proposals of some labels.

        For labels (C + 1,) bool the result is the number of proposals, then
        the accuracy and that of classes in percent. Both are NaN without
        proposals, and the latter also where background is a member.
        """
        total, *correct = self.counts[:, members].sum(1)
        with np.errstate(invalid='ignore'):
            accuracy, class_accuracy = 100 * np.array(correct) / total
        if members[-1]:
            class_accuracy = np.nan
        return int(total), float(accuracy), float(class_accuracy)


def _check_classifies_proposals(model: Any) -> None:
    """Check that a detector predicts as mmdet's two-stage detectors do."""
    name: str = type(model).__name__
    head: Any = type(getattr(model, 'roi_head', None))
    known = (StandardRoIHead.predict_bbox, CascadeRoIHead.predict_bbox)
    for holds, problem in (
        (getattr(model, 'with_rpn', False), f'rpn_head: {name} has none'),
        (
            type(model).predict is TwoStageDetector.predict,
            f'detector: {name} predicts in its own way',
        ),
        (
            head.predict_bbox in known,
            f'roi_head: {head.__name__} predicts in its own way',
        ),
    ):
        check(
            holds,
            f'model.{problem}, so the accuracy on proposals cannot be '
            'measured; use a detector such as FasterRCNN or CascadeRCNN',
        )


def label_groups(
    statistics: ClassStatistics, bin_edges: Sequence[float]
) -> dict[str, np.ndarray]:
    """Return the groups of labels of Table 1, and further ones.

    They are (C + 1,) bool each: ``all``, the bins by instance_count
    (``below_10``, ...), ``background``, and beside the table's
    ``foreground``, ``rare``, ``common`` and ``frequent``.

    Raises:
        LongTailError: If the edges are not positive and rising.
    """
    bins = statistics.bin_groups(bin_edges)
    is_background = np.arange(statistics.num_classes + 1) == (
        statistics.num_classes
    )
    groups = {'all': np.ones_like(is_background)}
    groups |= {bin.name: np.append(bin.members, False) for bin in bins}
    groups |= {'background': is_background, 'foreground': ~is_background}
    for group in statistics.frequency_groups():
        groups[group.name] = np.append(group.members, False)
    return groups

"""Exact multi-class NMS of the best candidates only.

Shapes: N RoIs, C classes (foreground only). A candidate is a pair of a RoI
and a class whose score is above ``score_thr``.
"""

from functools import partial
from typing import Any

import torch
from mmcv.ops import nms
from mmdet.models.layers import multiclass_nms
from torch import Tensor

SPLIT_THR = 10_000
"""mmcv compares boxes class by class from this many candidates on."""


def best_candidates(scores: Tensor, num_best: int) -> tuple[Tensor, Tensor]:
    """Return rows and labels of the highest scores (N, C), best first.

    There are ``num_best`` or, since all that have the lowest of the scores
    are taken, more. Among equal scores the lower row comes first, then the
    lower label.
    """
    lowest = scores.flatten().topk(num_best).values[-1]
    rows, labels = (scores >= lowest).nonzero(as_tuple=True)
    order = scores[rows, labels].argsort(descending=True, stable=True)
    return rows[order], labels[order]


def move_apart(
    boxes: Tensor, labels: Tensor, highest: Tensor, class_by_class: bool
) -> Tensor:
    """Move boxes (M, 4) so that boxes of different classes do not overlap.

    Inside a class all IoUs are mmcv's. ``highest`` is the largest coordinate
    of all candidates. ``class_by_class`` is whether boxes of different
    classes must not meet: in mmcv, boxes that reach outside the image, or are
    rounded far from it, can touch the next class.
    """
    moved = boxes + (labels.to(boxes) * (highest + 1)).unsqueeze(1)
    if class_by_class:
        # Mirroring changes no IoU, not even its rounding, and puts the
        # neighbours of a class on the other side of the origin.
        is_odd = (labels % 2 == 1).unsqueeze(1)
        moved = torch.where(is_odd, -moved.roll(2, 1), moved)
    return moved


def multiclass_nms_of_best(
    bboxes: Tensor,
    scores: Tensor,
    score_thr: float,
    nms_cfg: dict[str, Any],
    max_per_img: int,
    box_dim: int = 4,
) -> tuple[Tensor, Tensor]:
    """Compute mmdet's ``multiclass_nms``, fast for many classes.

    Greedy NMS decides on a box by the boxes with a higher score only. So NMS
    on the best M candidates decides exactly those M, and once ``max_per_img``
    of them survive, no other candidate matters. M is twice ``max_per_img``
    and doubles until they do, or until it has all candidates.

    Boxes are compared as mmcv compares them, moved by
    label * (largest coordinate of all candidates + 1). Far from the origin
    this move rounds boxes, and an IoU close to the threshold can come out on
    its other side: mmdet itself is not exact there, and this is mmdet's
    result. Among equal scores the lower RoI comes first, then the lower
    class; mmdet leaves their order to ``torch.sort``.

    mmdet's own function computes all but plain NMS with a limit: other
    settings in ``nms_cfg`` than ``type='nms'`` and ``iou_threshold``, boxes
    of other than four numbers, export to ONNX, and boxes that reach so far
    outside the image that moving them cannot keep the classes apart.

    Args:
        bboxes (Tensor): Boxes (N, 4) or, one per class, (N, C * 4).
        scores (Tensor): Probabilities (N, C + 1), background last.
        score_thr (float): Candidates have a higher score.
        nms_cfg (dict): ``test_cfg.rcnn.nms``.
        max_per_img (int): Largest number of detections.
        box_dim (int): Numbers in a box. Defaults to 4.

    Returns:
        tuple[Tensor, Tensor]: Boxes and their scores (K, 5), best first, and
        labels (K,).
    """
    arguments = (bboxes, scores, score_thr, nms_cfg, max_per_img)
    mmdets_own = partial(multiclass_nms, *arguments, box_dim=box_dim)
    settings = {'type': 'nms', **(nms_cfg or {})}
    threshold = settings.get('iou_threshold')
    is_plain = settings == {'type': 'nms', 'iou_threshold': threshold}
    is_plain = is_plain and max_per_img > 0 and box_dim == 4
    if not is_plain or torch.onnx.is_in_onnx_export():
        return mmdets_own()

    bboxes = bboxes.unflatten(1, (-1, 4))  # (N, 1 or C, 4)
    scores = scores[:, :-1]  # (N, C)
    is_candidate = scores > score_thr  # (N, C)
    num_candidates = int(is_candidate.sum())
    if num_candidates == 0:
        return bboxes.new_zeros(0, 5), is_candidate.new_zeros(0).long()

    is_shared = bboxes.size(1) == 1
    unused = ~(is_candidate.any(1, True) if is_shared else is_candidate)
    highest = bboxes.amax(2).masked_fill(unused, -torch.inf).max()
    lowest = bboxes.amin(2).masked_fill(unused, torch.inf).min()
    class_by_class = num_candidates >= SPLIT_THR
    if class_by_class and lowest < -highest / 2:
        return mmdets_own()

    scores = scores.masked_fill(~is_candidate, -torch.inf)
    num_best = 2 * max_per_img  # M
    boxes = bboxes.new_zeros(0, 4)
    while True:
        if len(boxes) < min(num_best, num_candidates):
            # More than M, because reading all scores costs much more.
            num_sorted = min(4 * num_best, num_candidates)
            rows, labels = best_candidates(scores, num_sorted)
            boxes = bboxes[rows, 0 if is_shared else labels]
            moved = move_apart(boxes, labels, highest, class_by_class)
            # nms sorts by score: with ranks, candidates keep their order.
            rank = torch.arange(
                len(boxes), 0, -1, dtype=torch.float, device=boxes.device
            )
        _, keep = nms(moved[:num_best], rank[:num_best], threshold)
        if len(keep) >= max_per_img or num_best >= num_candidates:
            break
        num_best *= 2
    keep = keep[:max_per_img]
    rows, labels = rows[keep], labels[keep]
    dets = torch.cat([boxes[keep], scores[rows, labels].unsqueeze(1)], 1)
    return dets, labels

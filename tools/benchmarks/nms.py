"""Time NMS over large vocabularies: mmdet's own and this package's.

Both run on the same boxes and scores, on one thread. Times are CPU times of
the process, which other work on the machine hardly changes. Ours is the least
of some repeats. With --device cuda, times are medians of the GPU's, mmdet's of
three. Figures are means over images. The column "differ" counts
detections that are not the same. The column "inexact" counts those of mmdet's
that NMS per class on the given boxes does not keep: mmdet offsets the boxes
per class, and float32 rounds the result.
"""

import argparse
import itertools
from functools import partial

import numpy as np
import torch
from mmcv.ops import nms
from mmdet.models.layers import multiclass_nms
from rich.console import Console
from rich.progress import track
from timing import (
    add_device,
    benchmark_parser,
    cpu_seconds,
    median_cuda_seconds,
    show,
)
from torch import Tensor

from mmdet_longtail.models.losses import EqualizationLoss
from mmdet_longtail.models.roi_heads.bbox_heads import multiclass_nms_of_best

Detections = tuple[Tensor, Tensor]
IMAGE_SIZE = 1333
NUM_OBJECTS = 20
IOU_THRESHOLD = 0.5
KINDS = ('softmax', 'sigmoid', 'EQL')
COLUMNS = (
    'classes',
    'boxes',
    'scores',
    'score_thr',
    'candidates',
    'mmdet ms',
    'ours ms',
    'found',
    'differ',
    'inexact',
)
OWN_SHARE = {'random': 0.5, 'clustered': 0.5, 'alike': 0.05}
"""Share of a RoI's logits that is its own and not its object's.

Random RoIs are each around an object of its own, the others around a few;
alike are those that hardly differ in their scores, the hardest case.
"""


def make_boxes(layout: str, num_rois: int) -> tuple[Tensor, Tensor]:
    """Return boxes (N, 4) and the index of the object of each (N,)."""
    num_objects = num_rois if layout == 'random' else NUM_OBJECTS
    center = IMAGE_SIZE * torch.rand(num_objects, 2)
    size = IMAGE_SIZE * (0.02 + 0.3 * torch.rand(num_objects, 2))
    index = torch.arange(num_rois) % num_objects
    jitter = 0.1 * torch.randn(2, num_rois, 2)
    center = center[index] + jitter[0] * size[index]
    size = size[index] * jitter[1].exp()
    boxes = torch.cat([center - size / 2, center + size / 2], 1)
    return boxes.clamp(0, IMAGE_SIZE), index


def make_scores(
    kind: str, layout: str, index: Tensor, num_classes: int
) -> Tensor:
    """Return probabilities (N, C + 1)."""
    num_rois, num_objects = len(index), int(index.max()) + 1
    shared = torch.randn(num_objects, num_classes + 1)
    own = torch.randn(num_rois, num_classes + 1)
    share = OWN_SHARE[layout]
    logits = 2 * ((1 - share**2) ** 0.5 * shared[index] + share * own)
    if kind == 'softmax':
        return logits.softmax(1)
    if kind == 'sigmoid':
        return (logits - 5).sigmoid()
    return EqualizationLoss(num_classes).get_activation(logits[:, :-1])


def exact_nms(
    bboxes: Tensor, scores: Tensor, score_thr: float, max_per_img: int
) -> Detections:
    """Apply NMS per class to the boxes as they are, in a plain loop."""
    found = []
    for label in range(scores.size(1) - 1):
        rows = (scores[:, label] > score_thr).nonzero().squeeze(1)
        dets, _ = nms(bboxes[rows], scores[rows, label], IOU_THRESHOLD)
        found.append((dets, torch.full_like(rows[: len(dets)], label)))
    dets, labels = map(torch.cat, zip(*found))
    best = dets[:, 4].argsort(descending=True, stable=True)[:max_per_img]
    return dets[best], labels[best]


def num_different(some: Detections, others: Detections) -> int:
    """Count the detections that the others lack."""
    rows, other_rows = (
        {(label, *det) for det, label in zip(dets.tolist(), labels.tolist())}
        for dets, labels in (some, others)
    )
    return len(rows - other_rows)


def measure(
    args: argparse.Namespace,
    seed: int,
    num_classes: int,
    layout: str,
    kind: str,
    score_thr: float,
) -> tuple[float, ...]:
    """Return the figures of one image, as in the table."""
    torch.manual_seed(seed)
    boxes, index = make_boxes(layout, args.rois)
    scores = make_scores(kind, layout, index, num_classes)
    nms_cfg = dict(type='nms', iou_threshold=IOU_THRESHOLD)
    boxes, scores = boxes.to(args.device), scores.to(args.device)
    inputs = boxes, scores, score_thr, nms_cfg, args.max_per_img
    our_runs = [
        cpu_seconds(multiclass_nms_of_best, *inputs)
        for _ in range(args.repeats)
    ]
    our_seconds = min(seconds for seconds, _ in our_runs)
    mmdet_seconds, mmdets = cpu_seconds(multiclass_nms, *inputs)
    if args.device == 'cuda':
        our_seconds, mmdet_seconds = (
            median_cuda_seconds([('', partial(call, *inputs))], repeats)['']
            for call, repeats in (
                (multiclass_nms_of_best, args.repeats),
                (multiclass_nms, 3),
            )
        )
    exact = exact_nms(boxes, scores, score_thr, args.max_per_img)
    return (
        float((scores[:, :-1] > score_thr).sum()),
        1e3 * mmdet_seconds,
        1e3 * our_seconds,
        len(mmdets[0]),
        num_different(our_runs[0][1], mmdets),
        num_different(mmdets, exact),
    )


def main() -> None:
    parser = benchmark_parser(
        __doc__,
        rois=(1000, 'RoIs per image'),
        max_per_img=(300, 'detections per image'),
        images=(2, 'images per setting'),
        repeats=(10, 'measurements of ours'),
        classes=([1203], 'numbers of classes'),
        score_thr=([1e-4, 1e-2, 0.05], 'score thresholds'),
    )
    args = add_device(parser).parse_args()
    torch.set_num_threads(1)
    settings = itertools.product(
        args.classes, OWN_SHARE, KINDS, args.score_thr
    )
    rows = []
    for setting in track([*settings], console=Console(stderr=True)):
        images = [measure(args, k, *setting) for k in range(args.images)]
        means = np.mean(images, axis=0).tolist()
        rows.append(dict(zip(COLUMNS, (*setting, *means))))
    title = f'{args.rois} RoIs, the best {args.max_per_img}, means of '
    title += (
        f'{args.images} image(s), {args.device}, torch {torch.__version__}'
    )
    show(title, rows, args.json)


if __name__ == '__main__':
    main()

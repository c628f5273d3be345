"""Time NMS over large vocabularies: mmdet's own and this package's.

Both run on the same boxes and scores, on one thread. Times are CPU times of
the process, which other work on the machine hardly changes. Ours is the least
of some repeats. The column "differ" counts detections that are not the same.
The column "inexact" counts those of mmdet's that NMS per class on the given
boxes does not keep: mmdet offsets the boxes per class, and float32 rounds the
result.
"""

import argparse
import itertools
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from mmcv.ops import nms
from mmdet.models.layers import multiclass_nms
from rich.console import Console
from rich.progress import track
from timing import benchmark_parser, long_tailed_statistics, show
from torch import Tensor

from mmdet_longtail.models.losses import EqualizationLoss
from mmdet_longtail.models.roi_heads.bbox_heads import multiclass_nms_of_best

Detections = tuple[Tensor, Tensor]
IMAGE_SIZE = 1333
NUM_OBJECTS = 20
IOU_THRESHOLD = 0.5
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
    loss = EqualizationLoss(num_classes)
    loss.set_class_statistics(long_tailed_statistics(num_classes))
    return loss.get_activation(logits[:, :-1])


def exact_nms(
    bboxes: Tensor, scores: Tensor, score_thr: float, max_per_img: int
) -> Detections:
    """Apply NMS per class to the boxes as they are, in a plain loop."""
    found = []
    for label in range(scores.size(1) - 1):
        rows = (scores[:, label] > score_thr).nonzero().squeeze(1)
        dets, _ = nms(bboxes[rows], scores[rows, label], IOU_THRESHOLD)
        found.append((dets, torch.full((len(dets),), label)))
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


def least_ms(
    function: Callable[[], Detections], repeats: int
) -> tuple[float, Detections]:
    """Return the least CPU time of a call in milliseconds, and its result."""
    least = float('inf')
    for _ in range(repeats):
        start = time.process_time()
        result = function()
        least = min(least, time.process_time() - start)
    return 1e3 * least, result


def measure(
    num_classes: int,
    layout: str,
    kind: str,
    score_thr: float,
    args: argparse.Namespace,
) -> dict[str, Any]:
    """Return means over the images of a setting, and sums of detections."""
    nms_cfg = dict(type='nms', iou_threshold=IOU_THRESHOLD)
    row = dict.fromkeys(('candidates', 'mmdet_ms', 'ours_ms'), 0.0)
    total = dict.fromkeys(('detections', 'different', 'mmdet_inexact'), 0)
    for seed in range(args.images):
        torch.manual_seed(seed)
        boxes, index = make_boxes(layout, args.rois)
        scores = make_scores(kind, layout, index, num_classes)
        inputs = (boxes, scores, score_thr, nms_cfg, args.max_per_img)
        ours_ms, ours = least_ms(
            partial(multiclass_nms_of_best, *inputs), args.repeats
        )
        mmdet_ms, mmdets = least_ms(partial(multiclass_nms, *inputs), 1)
        exact = exact_nms(boxes, scores, score_thr, args.max_per_img)
        num_candidates = int((scores[:, :-1] > score_thr).sum())
        row['candidates'] += num_candidates / args.images
        row['mmdet_ms'] += mmdet_ms / args.images
        row['ours_ms'] += ours_ms / args.images
        total['detections'] += len(mmdets[0])
        total['different'] += num_different(ours, mmdets)
        total['mmdet_inexact'] += num_different(mmdets, exact)
    return {
        'classes': num_classes,
        'boxes': layout,
        'scores': kind,
        'score_thr': score_thr,
        **row,
        **total,
    }


def main() -> None:
    parser = benchmark_parser(
        __doc__,
        rois=(1000, 'RoIs per image'),
        max_per_img=(300, 'detections per image'),
        images=(2, 'images per setting'),
        repeats=(10, 'measurements of ours'),
    )
    parser.add_argument(
        '--classes',
        type=int,
        nargs='+',
        default=[1203],
        help='numbers of classes (default: 1203)',
    )
    parser.add_argument(
        '--score-thr',
        type=float,
        nargs='+',
        default=[1e-4, 1e-2, 0.05],
        help='default: 1e-4 1e-2 0.05',
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    kinds = ('softmax', 'sigmoid', 'EQL')
    settings = list(
        itertools.product(args.classes, OWN_SHARE, kinds, args.score_thr)
    )
    figures = [
        measure(*setting, args)
        for setting in track(
            settings, 'measuring', console=Console(stderr=True)
        )
    ]
    rows = [
        {
            'C': row['classes'],
            'boxes': row['boxes'],
            'scores': row['scores'],
            'thr': f'{row["score_thr"]:g}',
            'candidates': f'{row["candidates"]:.0f}',
            'mmdet ms': f'{row["mmdet_ms"]:.1f}',
            'ours ms': f'{row["ours_ms"]:.1f}',
            'found': row['detections'],
            'differ': row['different'],
            'inexact': row['mmdet_inexact'],
        }
        for row in figures
    ]
    show(
        f'{args.rois} RoIs, the best {args.max_per_img}, {args.images} '
        f'image(s), one thread, torch {torch.__version__}',
        rows,
        figures,
        args.json,
    )


if __name__ == '__main__':
    main()

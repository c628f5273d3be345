"""Parts of the ensemble, called from Python."""

import naive
import numpy as np

from mmdet_longtail.apis.ensemble import best


def test_best_is_greedy_nms():
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 10, (30, 2))
    boxes = np.hstack([corner, corner + rng.uniform(3, 8, (30, 2))]).tolist()
    iou = np.array([[naive.box_iou(a, b) for b in boxes] for a in boxes])
    kept = []
    for row, box in enumerate(boxes):
        if all(naive.box_iou(box, boxes[k]) <= 0.4 for k in kept):
            kept.append(row)
    assert best(iou, 0.4) == kept
    assert 1 < len(kept) < 30

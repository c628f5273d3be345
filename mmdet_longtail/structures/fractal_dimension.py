"""Fractal dimension of the places where the boxes of a class are.

Alexandridis et al., Fractal Calibration for Long-Tailed Object Detection,
CVPR 2025, https://arxiv.org/abs/2410.11774

Shapes: C classes, m boxes.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from mmdet_longtail.errors import check
from mmdet_longtail.structures.annotation_fields import box_array, numbers

MAX_GRID = 64


def fractal_dimension(
    centers: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    max_grid: int = MAX_GRID,
) -> np.ndarray:
    """Compute the box-counting dimension of the centers of each class.

    N(G) is the number of cells with a center in a grid of G x G over the
    image. The dimension is the slope of log N over log G by least squares,
    over all G from 1 to ``max_grid`` with G^2 <= n, the number of boxes. It
    is at least 1, and 1 for a class of fewer than 4 boxes: from 1, all boxes
    on a line, to 2, boxes everywhere.

    Args:
        centers (np.ndarray): x and y relative to the image, (m, 2), in
            [0, 1); others are in no cell.
        labels (np.ndarray): Class of each box, (m,).
        num_classes (int): C.
        max_grid (int): The finest grid. Defaults to 64, the paper's.

    Returns:
        np.ndarray: (C,) float64.
    """
    n = np.bincount(labels, minlength=num_classes)
    is_inside = ((centers >= 0) & (centers < 1)).all(1)
    x, y = centers[is_inside].T
    label = labels[is_inside]
    grids = np.arange(1, max_grid + 1)
    num_cells = np.empty((num_classes, max_grid))
    for G in grids:
        is_occupied = np.zeros((num_classes, G * G), bool)
        cell = (y * G).astype(int) * G + (x * G).astype(int)
        is_occupied[label, cell] = True
        num_cells[:, G - 1] = is_occupied.sum(1)
    log_grid = np.log(grids)
    log_cells = np.log(np.maximum(num_cells, 1))
    is_used = grids**2 <= n[:, None]  # (C, max_grid)
    num_used = np.maximum(is_used.sum(1, keepdims=True), 1)
    offset = log_grid - (is_used * log_grid).sum(1, keepdims=True) / num_used
    offset = offset * is_used
    # A class with one grid, or none, has no slope.
    spread = (offset**2).sum(1)
    slope = (offset * log_cells).sum(1) / np.where(spread > 0, spread, 1)
    return np.maximum(slope, 1)


def read_box_centers(
    content: Mapping[str, Any], category_ids: Sequence[Hashable], source: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the center and the label of each box of a COCO or LVIS file.

    The content is valid, and labels follow the category ids.

    Returns:
        tuple[np.ndarray, np.ndarray]: (m, 2), relative to the image, and
        (m,).

    Raises:
        LongTailError: If an image with boxes has no size.
    """
    label_of = {category: c for c, category in enumerate(category_ids)}
    boxes = [a for a in content['annotations'] if a['category_id'] in label_of]
    labels = np.array([label_of[a['category_id']] for a in boxes], np.int64)
    images = content['images']
    row_of = {image['id']: row for row, image in enumerate(images)}
    rows = np.array([row_of[a['image_id']] for a in boxes], np.int64)
    sizes = [numbers(images, key)[rows] for key in ('width', 'height')]
    size = np.stack(sizes, 1)  # (m, 2)
    [wrong] = np.nonzero(~(size > 0).all(1))
    check(
        not len(wrong),
        f'{source}: image {boxes[wrong[0]]["image_id"] if len(wrong) else ""}'
        " has no 'width' and 'height' above 0, expected the size to which "
        'the centers of its boxes are relative',
    )
    corners = box_array(a['bbox'] for a in boxes)
    return (corners[:, :2] + corners[:, 2:] / 2) / size, labels
